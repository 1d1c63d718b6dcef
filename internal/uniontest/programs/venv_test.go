package programs

import (
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// venvLower is a package in source form, and modules compiled by another time stamp than theirs.
const venvLower = `
mkdir -p proj/pkg
cat >proj/pkg/__init__.py <<'END'
import json, sqlite3, tempfile, mmap
VALUE = "lower"
END
echo 'from . import VALUE; print(VALUE)' >proj/pkg/__main__.py
python3 -m compileall -q proj
`

const venvWork = `
python3 -m venv venv
venv/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix; print("venv")'
cd proj
../venv/bin/python -m pkg
sed -i 's/"lower"/"upper"/' pkg/__init__.py
../venv/bin/python -m pkg
../venv/bin/python -m compileall -qf .
../venv/bin/python - <<'END'
import mmap, os, shutil, tempfile
shutil.copytree("pkg", "copy")
assert sorted(os.listdir("pkg")) == sorted(os.listdir("copy"))
shutil.move("pkg", "moved")                       # a directory of the lower
shutil.rmtree("copy")
with tempfile.TemporaryDirectory(dir=".") as d, open(d + "/m", "w+b") as f:
    f.truncate(8192)
    with mmap.mmap(f.fileno(), 8192) as m:
        m[5000:5005] = b"hello"
        m.flush()
    f.seek(5000)
    assert f.read(5) == b"hello"
with tempfile.TemporaryFile(dir=".") as f:        # O_TMPFILE
    f.write(b"x" * 100000)
    f.seek(0)
    assert len(f.read()) == 100000
END
ls
cd ..
venv/bin/python -m pip --version | cut -d ' ' -f 1
python3 -m venv --upgrade venv
python3 -m venv --clear --without-pip venv
find venv -name pip | wc -l
rm -rf venv
ls
`

func TestVenv(t *testing.T) {
	need(t, "python3")
	everywhere(t, onlyRoot, nil, func(t *testing.T, p place) {
		l := p.layers(t, venvLower)
		m := p.mount(t, l)
		got := shell.Run(t, l.Helper(), m.Dir(), venvWork)
		shell.Same(t, "venv", got, "venv\nlower\nupper\nmoved\npip\n0\nproj\n")
	})
}
