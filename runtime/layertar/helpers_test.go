package layertar_test

import (
	"context"
	"time"
)

// mtime is a time that only nanoseconds can tell.
var mtime = time.Unix(1234567890, 987654321)

// ctxOfTests is the context of the helper process, which has no test.
func ctxOfTests() context.Context { return context.Background() }
