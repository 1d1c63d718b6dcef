package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// A ban is a set of calls that some parts of the tree must not make.
type ban struct {
	rule   string
	reason string
	in     []string // parts of the tree as arrows has them; nil is all of it
	except []string // files that are free of it
	tests  bool     // holds in tests too
	loops  bool     // does not hold in loops
	calls  map[string][]string
}

// onLayers are the parts that touch layers. internal/sys, which all of them go through, is left out: it is the place
// where a descriptor becomes a path below /proc/self/fd.
var onLayers = []string{"unionfs", "copyup", "whiteout", "internal/override", "runtime/layertar"}

var bans = []ban{
	{
		rule:   "create",
		reason: "os.Create follows links and truncates what is there: give the flags by name",
		calls:  map[string][]string{"os": {"Create"}},
	},
	{
		rule:   "path",
		reason: "a layer's content is untrusted: reach it by (dirfd, one name) through internal/sys",
		in:     onLayers,
		except: []string{"unionfs/layer.go", "unionfs/workdir.go"}, // the layers themselves, by the administrator's paths
		calls: map[string][]string{
			"os": {
				"Chmod", "Chown", "Chtimes", "Lchown", "Link", "Lstat", "Mkdir", "MkdirAll", "MkdirTemp", "CreateTemp",
				"Open", "OpenFile", "ReadDir", "ReadFile", "Readlink", "Remove", "RemoveAll", "Rename", "Stat", "Symlink",
				"Truncate", "WriteFile", "CopyFS", "DirFS",
			},
			"golang.org/x/sys/unix": {
				"Access", "Chmod", "Chown", "Creat", "Getxattr", "Lchown", "Lgetxattr", "Link", "Listxattr", "Llistxattr",
				"Lremovexattr", "Lsetxattr", "Lstat", "Mkdir", "Mkfifo", "Mknod", "Open", "Readlink", "Removexattr",
				"Rename", "Rmdir", "Setxattr", "Stat", "Statfs", "Symlink", "Truncate", "Unlink", "Utimes", "UtimesNano",
				"Lutimes",
			},
			"path/filepath": {"EvalSymlinks", "Glob", "Walk", "WalkDir"},
		},
	},
	{
		rule:   "setid",
		reason: "ids belong to a thread: the wrappers change those of the whole process, other requests included",
		in:     []string{"cmd", "unionfs", "copyup", "whiteout", "internal/sys"},
		calls: map[string][]string{
			"syscall": {
				"Setuid", "Setgid", "Setreuid", "Setregid", "Setresuid", "Setresgid", "Seteuid", "Setegid", "Setgroups",
			},
			"golang.org/x/sys/unix": {
				"Setuid", "Setgid", "Setreuid", "Setregid", "Setresuid", "Setresgid", "Seteuid", "Setegid", "Setgroups",
			},
		},
	},
	{
		rule:   "panic",
		reason: "a request that fails is an errno; a panic is for a broken invariant of our own, and says so",
		in:     onLayers,
		calls:  map[string][]string{"": {"panic"}},
	},
	{
		rule:   "sleep",
		reason: "a sleep is no synchronisation: it is too short on a busy machine and too long on others",
		tests:  true,
		loops:  true, // where it is a poll
		calls:  map[string][]string{"time": {"Sleep"}},
	},
}

func (b *ban) covers(f *file) bool {
	if f.test && !b.tests || slices.Contains(b.except, f.path) {
		return false
	}
	p, _ := part(f.pkg)
	return b.in == nil || slices.Contains(b.in, p)
}

// called names what a call calls: the import path of its package, empty for the language's own, and the function.
func called(f *file, call *ast.CallExpr) (pkg, name string) {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return "", fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			if path, ok := f.imports()[x.Name]; ok {
				return path, fn.Sel.Name
			}
		}
	}
	return "?", ""
}

// broken lists the calls of f that b bans.
func (b *ban) broken(fset *token.FileSet, f *file) []string {
	if !b.covers(f) {
		return nil
	}
	var found []string
	var above []ast.Node // from the file down to the node
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if n == nil {
			above = above[:len(above)-1]
			return true
		}
		above = append(above, n)
		call, ok := n.(*ast.CallExpr)
		if !ok || b.loops && inLoop(above) {
			return true
		}
		pkg, name := called(f, call)
		line := fset.Position(call.Pos()).Line
		if slices.Contains(b.calls[pkg], name) && !f.allowed[b.rule][line] {
			found = append(found, fmt.Sprintf("%s:%d: %s is banned (%s): %s", f.path, line, name, b.rule, b.reason))
		}
		return true
	})
	return found
}

// inLoop reports whether the last of the nodes is in a loop of the same function.
func inLoop(above []ast.Node) bool {
	for _, n := range slices.Backward(above) {
		switch n.(type) {
		case *ast.FuncLit, *ast.FuncDecl:
			return false
		case *ast.ForStmt, *ast.RangeStmt:
			return true
		}
	}
	return false
}

func TestBans(t *testing.T) {
	fset, files := tree(t)
	for _, f := range files {
		for _, b := range bans {
			for _, s := range b.broken(fset, f) {
				t.Error(s)
			}
		}
	}
}

func TestBannedCallIsFound(t *testing.T) {
	tests := []struct {
		path, src string
		rule      string // that is broken; empty for none
	}{
		{"cmd/laminafs/main.go", `import "os"; func f() { os.Create("x") }`, "create"},
		{"unionfs/open.go", `import "os"; func f() { os.Open("x") }`, "path"},
		{"cmd/laminafs/main.go", `import "os"; func f() { os.Open("x") }`, ""},
		{"unionfs/open_test.go", `import "os"; func f() { os.Open("x") }`, ""},
		{"copyup/file.go", `import "golang.org/x/sys/unix"; func f() { unix.Rename("a", "b") }`, "path"},
		{"copyup/file.go", `import "golang.org/x/sys/unix"; func f() { unix.Renameat(1, "a", 2, "b") }`, ""},
		{"unionfs/creds.go", `import "syscall"; func f() { syscall.Setuid(0) }`, "setid"},
		{"unionfs/node.go", `func f() { panic("lost") }`, "panic"},
		{"unionfs/node.go", "func f() {\n// lint:allow panic: the count is ours\npanic(1) }", ""},
		{"unionfs/node.go", "func f() {\n// lint:allow panic:\npanic(1) }", "panic"},
		{"unionfs/node_test.go", `import "time"; func f() { time.Sleep(1) }`, "sleep"},
		{"unionfs/node_test.go", `import "time"; func f() { for !done() { time.Sleep(1) } }`, ""},
		{"unionfs/node_test.go", `import "time"; func f() { for { go func() { time.Sleep(1) }() } }`, "sleep"},
		{"unionfs/node_test.go", `import clock "time"; func f() { clock.Sleep(1) }`, "sleep"},
	}
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.rule, func(t *testing.T) {
			fset := token.NewFileSet()
			f := parse(t, fset, tt.path, tt.path, "package p\n"+tt.src)
			var got []string
			for _, b := range bans {
				if len(b.broken(fset, f)) > 0 {
					got = append(got, b.rule)
				}
			}
			if strings.Join(got, " ") != tt.rule {
				t.Errorf("broken %v, want %q", got, tt.rule)
			}
		})
	}
}
