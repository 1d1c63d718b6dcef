package programs

import (
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/leak"
	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// goModule is a module of three packages that needs the standard library only.
const goModule = `
mkdir -p src/greet src/cmd/hello
cd src
printf 'module example.org/hello\n\ngo 1.21\n' >go.mod
cat >greet/greet.go <<'END'
package greet

import "strings"

const who = "lower"

func Hello() string { return strings.ToUpper("hello ") + who }
END
cat >greet/greet_test.go <<'END'
package greet

import (
	"os"
	"testing"
)

func TestHello(t *testing.T) {
	if Hello() != "HELLO "+os.Getenv("WHO") {
		t.Fatal(Hello())
	}
}
END
cat >cmd/hello/main.go <<'END'
package main

import (
	"os"

	"example.org/hello/greet"
)

func main() { os.Stdout.WriteString(greet.Hello() + "\n") }
END
`

const goWork = `
export GOCACHE="$PWD/cache" GOPATH="$PWD/gopath" TMPDIR="$PWD/tmp" CGO_ENABLED=0
mkdir tmp
cd src
go build -o ../hello ./cmd/hello
../hello
WHO=lower go test ./... >/dev/null
sed -i 's/"lower"/"upper"/' greet/greet.go       # a copy-up, renamed over
go build -o ../hello ./cmd/hello                 # over a binary that has run
../hello
WHO=upper go test -count=1 ./greet >/dev/null
go vet ./...
go build -o ../hello ./cmd/hello
../hello
test -z "$(ls -A ../tmp)"
go clean -cache
cd ..
find cache -type f -name '*-[ad]' | wc -l
`

// goCache is a build cache that holds what of the standard library the module needs, made once: on the mount it is
// a lower layer, whose files the go command reads, touches and at last deletes.
var goCache = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lamina-gocache-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("bash", "-euc", `mkdir -p "$0/w"; cd "$0/w"; `+goModule+`
		export GOCACHE="$0/cache" CGO_ENABLED=0
		go build ./... && go vet ./... && WHO=lower go test ./...; go clean -testcache
		chmod -R a+rX "$0"`, dir)
	cmd.Env = append(os.Environ(), shell.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, &exec.Error{Name: string(out), Err: err}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	os.Exit(leak.Run(func() int {
		code := m.Run()
		for _, dir := range made {
			_ = os.RemoveAll(dir)
		}
		return code
	}))
}

// made are directories that tests share, removed after the last.
var made []string

func TestGoBuild(t *testing.T) {
	need(t, "go")
	cache, err := goCache()
	made = append(made, cache)
	if err != nil {
		t.Fatal(err)
	}
	everywhere(t, anyRoot, nil, func(t *testing.T, p place) {
		l := p.layers(t, goModule+`cd ..; cp -r "$1/cache" cache`, cache)
		m := p.mount(t, l)
		shell.Same(t, "output", shell.Run(t, l.Helper(), m.Dir(), goWork), "HELLO lower\nHELLO upper\nHELLO upper\n0\n")
		m.Remount()
		shell.Run(t, l.Helper(), m.Dir(), `test "$(./hello)" = 'HELLO upper'; test "$(ls -A cache/00 | wc -l)" = 0`)
	})
}
