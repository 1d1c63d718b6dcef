package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of the root of the tree.
const module = "github.com/laminafs/lamina"

// A file is one Go source file of the tree.
type file struct {
	path string // from the root of the tree
	pkg  string // its directory from the root: "unionfs", "internal/sys"
	test bool   // a test, or of the packages that only tests import
	ast  *ast.File

	// allowed has the lines on which a rule may be broken: rule -> line numbers.
	allowed map[string]map[int]bool
}

// imports maps the name under which the file knows a package to its import path.
func (f *file) imports() map[string]string {
	m := map[string]string{}
	for _, spec := range f.ast.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		m[name] = path
	}
	return m
}

var allow = regexp.MustCompile(`lint:allow ([a-z-]+): \S`)

// parse reads one file. A mark stands for its own line and the next.
func parse(t testing.TB, fset *token.FileSet, path, rel string, src any) *file {
	t.Helper()
	tree, err := parser.ParseFile(fset, path, src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	f := &file{
		path: rel, pkg: filepath.Dir(rel), ast: tree,
		test:    strings.HasSuffix(rel, "_test.go") || strings.HasPrefix(rel, "internal/uniontest/"),
		allowed: map[string]map[int]bool{},
	}
	for _, group := range tree.Comments {
		for _, c := range group.List {
			m := allow.FindStringSubmatch(c.Text)
			if m == nil {
				continue
			}
			if f.allowed[m[1]] == nil {
				f.allowed[m[1]] = map[int]bool{}
			}
			line := fset.Position(group.End()).Line
			f.allowed[m[1]][line] = true
			f.allowed[m[1]][line+1] = true
		}
	}
	return f
}

// tree parses every Go file of the repository.
func tree(t testing.TB) (*token.FileSet, []*file) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*file
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files = append(files, parse(t, fset, path, rel, nil))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("%d Go files below %s: this is not the tree", len(files), root)
	}
	return fset, files
}
