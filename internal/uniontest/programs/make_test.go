package programs

import (
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// makeLower is a project that has been built: sources, outputs that are newer, and directories of outputs.
const makeLower = `
mkdir src
for i in $(seq 60); do echo "part $i" >"src/$i.in"; done
cat >Makefile <<'END'
parts := $(patsubst src/%.in,out/%.o,$(wildcard src/*.in))
program: $(parts)
	cat $(sort $^) >$@.tmp
	mv $@.tmp $@
out/%.o: src/%.in | out
	tr a-z A-Z <$< >$@
	@echo $* >>log
out:
	mkdir $@
clean:
	rm -rf out program
.PHONY: clean
END
find src -exec touch -d '2001-02-03' {} +
make -s
rm log
`

const makeWork = `
make -q                                         # nothing to do: the times of the lower are seen as they are
echo more >>src/7.in
touch src/9.in
if make -q; then exit 1; fi
make -s -j4
sort log; rm log                                # these two, and no other
make -q
rm out/3.o
make -s
sort log; rm log
make -s clean
test ! -e out
make -s -j8
sort log | wc -l
make -q
cat program
find . -printf '%P %y\n' | sort
`

func TestMake(t *testing.T) {
	need(t, "make")
	everywhere(t, anyone, nil, func(t *testing.T, p place) {
		l := p.layers(t, makeLower)
		ref := outside(t, l, ".")
		m := p.mount(t, l)
		got := shell.Run(t, l.Helper(), m.Dir(), makeWork)
		shell.Same(t, "make on the mount and on the plain directory", got, shell.Run(t, l.Helper(), ref, makeWork))
		m.Remount()
		shell.Run(t, l.Helper(), m.Dir(), "make -q")
	})
}
