package container

import (
	"encoding/base64"

	"github.com/laminafs/lamina/internal/jsontext"
	api "github.com/moby/moby/api/types/container"
)

// rawName is a name or a path of a file on its way between two of our processes. It may have any byte but NUL, and JSON
// carries nothing but UTF-8 (RFC 8259, section 8.1): what is not, encoding/json replaces without a word.
type rawName string

func (n rawName) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(n)), nil
}

func (n *rawName) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	*n = rawName(b)
	return err
}

// rawPathStat is an api.PathStat on its way.
type rawPathStat struct {
	api.PathStat
	RawName, RawLinkTarget rawName
}

func toRaw(st api.PathStat) rawPathStat {
	return rawPathStat{st, rawName(st.Name), rawName(st.LinkTarget)}
}

func (st *rawPathStat) stat() api.PathStat {
	st.Name, st.LinkTarget = string(st.RawName), string(st.RawLinkTarget)
	return st.PathStat
}

// checkText refuses what Docker's JSON, in which a container is recorded, cannot hold. Errors: ErrInvalid.
func checkText(vs ...any) error {
	if err := jsontext.Check(vs...); err != nil {
		return fail(ErrInvalid, "%v", err)
	}
	return nil
}
