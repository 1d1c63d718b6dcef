package programs

import (
	"testing"

	"github.com/laminafs/lamina/internal/uniontest/shell"
)

// gitHistory fills a bare repository with two branches of 40 commits, loose objects and a pack, below the working
// directory.
const gitHistory = `
git init -q -b main tree
cd tree
for i in $(seq 40); do
	mkdir -p "dir$((i % 7))"
	seq "$i" "$((i * 20))" >"dir$((i % 7))/file$i"
	echo "$i" >counter
	git add -A
	git commit -qm "commit $i"
	[ "$i" != 20 ] || { git branch side; git gc -q; }
done
git checkout -q side
git mv dir1 moved
ln -s moved/file1 link
chmod +x counter
git add -A
git commit -qm 'side: move a directory'
git checkout -q main
cd ..
git clone -q --bare tree bare.git
git -C bare.git remote remove origin
`

// gitWork clones the repository, works in the clone and in the one that began in the lower, and packs both.
const gitWork = `
git -C bare.git fsck --full --strict
git clone -q bare.git clone 2>&1            # hard links of lower objects, where they can be made
git clone -q --no-local bare.git other 2>&1
cd clone
git checkout -q side
test -x counter
test "$(readlink link)" = moved/file1
git checkout -q main
test ! -e link
git -c merge.directoryRenames=false merge -q -m 'merge side' -X ours side
echo changed >>dir2/file2
git rm -q dir3/file3
git commit -qam 'change and delete'
git stash list
git push -q origin main side
git gc -q --prune=now
git fsck --full --strict
cd ..
cd tree                                      # a working tree that began in the lower
git checkout -q main
git pull -q --ff-only ../bare.git main
git reset -q --hard HEAD~1
git merge -q --ff-only FETCH_HEAD
git clean -fdxq
git gc -q --aggressive --prune=now
cd ..
git -C bare.git gc -q --prune=now
`

// gitState says what is in the three repositories, and fails where one of them is damaged.
const gitState = `
for r in bare.git clone tree other; do
	echo "$r"
	git -C "$r" fsck --full --strict
	git -C "$r" for-each-ref
	git -C "$r" ls-tree -r HEAD
	[ "$r" = bare.git ] || git -C "$r" status --porcelain=v2 --ignored
done
find clone tree -path '*/.git' -prune -o -printf '%P %y %m %l\n' | sort
`

func TestGit(t *testing.T) {
	need(t, "git")
	everywhere(t, anyone, nil, func(t *testing.T, p place) {
		l := p.layers(t, gitHistory)
		ref := outside(t, l, ".")
		m := p.mount(t, l)
		shell.Run(t, l.Helper(), m.Dir(), gitWork)
		got := shell.Run(t, l.Helper(), m.Dir(), gitState)

		shell.Run(t, l.Helper(), ref, gitWork)
		shell.Same(t, "git on the mount and on the plain directory", got, shell.Run(t, l.Helper(), ref, gitState))

		m.Remount()
		shell.Same(t, "git after a remount", shell.Run(t, l.Helper(), m.Dir(), gitState), got)
	})
}
