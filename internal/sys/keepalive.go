package sys

import goruntime "runtime"

// keepAlive keeps a buffer whose address travels inside a struct, where the garbage collector does not see it,
// until the call that uses it has returned. The collector does not move heap objects; a buffer on a stack that
// could move is forced to the heap by escaping here.
func keepAlive(b []byte) {
	goruntime.KeepAlive(&b)
	if sink != nil {
		sink = b
	}
}

var sink []byte
