package lint

import (
	"fmt"
	"go/token"
	"strings"
	"testing"
)

// arrows gives every part of the tree the parts it may import. Imports point one way:
//
//	cmd -> runtime, unionfs -> copyup, whiteout -> internal/sys
//
// A part is a folder with all that is below it, unless a longer one is listed. Tests may import internal/uniontest
// besides.
var arrows = map[string][]string{
	"cmd":                {"runtime", "unionfs", "unionfs/transport", "bench", "whiteout", "internal/beside", "internal/figures", "internal/metrics", "internal/endpoint", "internal/livemount", "internal/mountopt", "internal/packet", "internal/sys", "internal/sysmon", "internal/heap", "internal/version"},
	"runtime":            {"runtime/layertar", "internal/beside", "internal/endpoint", "internal/figures", "internal/livemount", "internal/metrics", "whiteout", "internal/override", "internal/packet", "internal/sys", "internal/fault", "internal/sysmon", "internal/heap", "internal/jsontext"}, // mounts by running laminafs
	"runtime/layertar":   {"whiteout", "internal/override", "internal/sys"},
	"unionfs":            {"copyup", "whiteout", "internal/figures", "internal/override", "internal/claim", "internal/sys", "internal/fault"},
	"unionfs/transport":  {"internal/figures", "internal/packet", "internal/sys", "internal/sysmon", "internal/uring"},
	"copyup":             {"whiteout", "internal/override", "internal/sys", "internal/fault"},
	"whiteout":           {"internal/sys"},
	"internal/override":  {"internal/sys"},
	"internal/beside":    {},
	"internal/claim":     {"internal/sys"},
	"internal/figures":   {},
	"internal/heap":      {},
	"internal/metrics":   {"internal/figures", "internal/endpoint"},
	"internal/endpoint":  {},
	"internal/livemount": {"internal/sys"},
	"internal/mountopt":  {"internal/endpoint", "unionfs", "unionfs/transport", "whiteout"},
	"internal/packet":    {},
	"internal/sys":       {},
	"internal/sysmon":    {},
	"internal/uring":     {"internal/sys"},
	"internal/version":   {},
	"internal/fault":     {},
	"internal/jsontext":  {},
	"internal/lint":      {},
	"internal/uniontest": {"unionfs", "unionfs/transport", "whiteout", "internal/override", "internal/sys", "internal/sysmon", "internal/figures", "internal/fault", "internal/metrics", "runtime"},
	"bench":              {"internal/sys", "internal/sysmon"},
}

// part is the longest entry of arrows that holds the package.
func part(pkg string) (string, bool) {
	for p := pkg; ; {
		if _, ok := arrows[p]; ok {
			return p, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return "", false
		}
		p = p[:i]
	}
}

// wrongArrows lists the imports of f that point the wrong way.
func wrongArrows(f *file) []string {
	from, ok := part(f.pkg)
	if !ok {
		return []string{fmt.Sprintf("%s: package %s has no place in the tree: add it to arrows", f.path, f.pkg)}
	}
	may := map[string]bool{from: true}
	for _, to := range arrows[from] {
		may[to] = true
	}
	if f.test {
		may["internal/uniontest"] = true
	}
	var wrong []string
	for _, path := range f.imports() {
		pkg, ours := strings.CutPrefix(path, module+"/")
		if !ours {
			continue
		}
		if to, ok := part(pkg); !ok || !may[to] {
			wrong = append(wrong, fmt.Sprintf("%s: %s may not import %s", f.path, from, pkg))
		}
	}
	return wrong
}

func TestImportsPointOneWay(t *testing.T) {
	_, files := tree(t)
	for _, f := range files {
		for _, w := range wrongArrows(f) {
			t.Error(w)
		}
	}
}

func TestWrongArrowIsFound(t *testing.T) {
	tests := []struct {
		path, imports string
		wrong         bool
	}{
		{"unionfs/lookup.go", "whiteout", false},
		{"unionfs/lookup.go", "runtime", true},
		{"whiteout/whiteout.go", "unionfs", true},
		{"whiteout/whiteout.go", "internal/uniontest", true},
		{"whiteout/whiteout_test.go", "internal/uniontest", false},
		{"runtime/image/load.go", "internal/sys", false},
		{"util/strings.go", "whiteout", true},
	}
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.imports, func(t *testing.T) {
			src := fmt.Sprintf("package p\nimport _ %q\n", module+"/"+tt.imports)
			f := parse(t, token.NewFileSet(), tt.path, tt.path, src)
			if got := len(wrongArrows(f)) > 0; got != tt.wrong {
				t.Errorf("wrong = %v, want %v", got, tt.wrong)
			}
		})
	}
}
