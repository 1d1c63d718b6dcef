package uniontest

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/DIFFERENCES.md")

// configs are the ways in which every script runs. Each value of redirect_dir meets each format and each identity
// once over; a script to which it matters asks for both.
var configs = []Config{
	{System: Laminafs, Who: Root, Format: "wh"},
	{System: Laminafs, Who: Root, Format: "overlay", Redirect: true},
	{System: Laminafs, Who: UserNS, Format: "wh", Redirect: true},
	{System: Laminafs, Who: UserNS, Format: "overlay"},
	{System: Laminafs, Who: User, Format: "wh"},
	{System: Laminafs, Who: User, Format: "overlay", Redirect: true},
	{System: Overlay, Who: Root, Format: "overlay", Redirect: true},
}

func loadScripts(t *testing.T) []*Script {
	t.Helper()
	scripts, err := LoadScripts(scriptDir)
	if err != nil {
		t.Fatal(err)
	}
	return scripts
}

// TestScripts runs every layer script in every configuration it is for: -run TestScripts/kernel-overlay/rename/file-over-file
// is one of them.
func TestScripts(t *testing.T) {
	scripts := loadScripts(t)
	for _, c := range configs {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			if c.System == Overlay {
				NeedOverlay(t)
			}
			h := As(t, c.Who)
			for _, s := range scripts {
				if s.NotOn[string(c.System)] != "" {
					continue
				}
				for _, v := range s.variants(c) {
					name := s.File + "/" + s.Name
					if v.Redirect != c.Redirect {
						name += map[bool]string{true: "/redirect", false: "/noredirect"}[v.Redirect]
					}
					t.Run(name, func(t *testing.T) { s.Run(t, v, h) })
				}
			}
		})
	}
}

// A difference that is gone has no place in docs/DIFFERENCES.md: each such script fails on the system it names.
func TestDifferencesAreTrue(t *testing.T) {
	NeedOverlay(t)
	h := As(t, Root)
	for _, s := range loadScripts(t) {
		for sys, why := range s.NotOn {
			c := Config{System: System(sys), Who: Root, Format: "overlay", Redirect: true}
			t.Run(sys+"/"+s.File+"/"+s.Name, func(t *testing.T) {
				if len(s.variants(c)) == 0 {
					t.Fatalf("%s.txt:%d: is not for %s anyway, leave out not-on", s.File, s.Line, sys)
				}
				r := &recorder{TB: t}
				r.run(func() { s.Run(r, c, h) })
				if len(r.errors) == 0 {
					t.Errorf("%s.txt:%d: works on %s, where it should not: %s", s.File, s.Line, sys, why)
				}
			})
		}
	}
}

const generated = "<!-- What follows is written by go test ./internal/uniontest -run TestDifferencesFile -update -->\n"

func TestDifferencesFile(t *testing.T) {
	b, err := os.ReadFile(differencesFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), generated)
	if !ok {
		t.Fatalf("%s has no line %q", differencesFile, generated)
	}
	want := Differences(loadScripts(t))
	if rest == want {
		return
	}
	if !*update {
		t.Fatalf("%s does not list what the scripts say; run with -update", differencesFile)
	}
	if err := os.WriteFile(differencesFile, []byte(head+generated+want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What a script says must be able to fail.
func TestScriptFinds(t *testing.T) {
	NeedOverlay(t)
	h := As(t, Root)
	c := Config{System: Overlay, Who: Root, Format: "overlay", Redirect: true}
	for name, text := range map[string]string{
		"content":       "lower: a=\"1\"\nmerged: a=\"2\"",
		"type":          "lower: a=\"1\"\nmerged: a/",
		"mode":          "lower: a(0644)\nmerged: a(0600)",
		"owner":         "lower: a(1:2)\nmerged: a(1:3)",
		"mtime":         "lower: a(mtime=1000)\nmerged: a(mtime=1001)",
		"xattr":         "lower: a{user.k=\"v\"}\nmerged: a",
		"target":        "lower: a->b\nmerged: a->c",
		"missing":       "lower: a\nmerged: a b",
		"unexpected":    "lower: a b\nmerged: a",
		"link":          "lower: a b\nmerged: a b=link:a",
		"errno":         "lower: a\nrm b -> EPERM",
		"success":       "lower: a\nrm a -> EPERM",
		"failure":       "rm a",
		"output":        "lower: a=\"1\"\ncat a -> 2",
		"attribute":     "lower: a\nstat a -> size=1",
		"status":        "sh false",
		"shell output":  "sh echo 1 -> 2",
		"upper":         "lower: a\nrm a\nupper:",
		"whiteout":      "lower: a\nmkdir b\nupper: a=whiteout b/",
		"opaque":        "lower: a/b\nchmod a 0700\nupper: a/=opaque",
		"inode":         "lower: a b\nsame-ino a b",
		"no such thing": "frobnicate a",
		"usage":         "mv a",
		"lower changed": "lower: a\nsh touch $LOWER1/new",
		"big content":   "lower: a=rand:1:1M\nmerged: a=rand:2:1M",
	} {
		t.Run(name, func(t *testing.T) {
			scripts, err := parseScripts("x", "-- x --\n"+text+"\n")
			if err != nil {
				t.Fatal(err)
			}
			r := &recorder{TB: t}
			r.run(func() { scripts[0].Run(r, c, h) })
			if len(r.errors) == 0 {
				t.Errorf("passes:\n%s", text)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{
		"mv a b",
		"-- x --\nfrob: a",
		"-- x --\nlower: a(9)",
		"-- x --\nlower: a=what",
		"-- x --\nlower: a=\"open",
		"-- x --\nlower: a{user.k=v}",
		"-- x --\nlower: a(1:x)",
		"-- x --\nnot-on: overlay no quotes",
		"-- x --\nlower: c=char:1",
		"-- x --\n[wh rm a",
	} {
		if _, err := parseScripts("x", text); err == nil {
			t.Errorf("no error for:\n%s", text)
		}
	}
}

// An entry that is read and written is the same.
func TestEntryString(t *testing.T) {
	for _, e := range []string{
		`a="1"`, `d/`, `l->x`, `"a b"="c\nd"`, `"\xff"=""`, `p=fifo`, `s=sock`, `c=char:1:3`, `b=block:7:0`, `h=link:a`,
		`x=whiteout`, `d/=opaque+redirect:/x`, `a(4755,1:2,mtime=5,nlink=3){user.a="1",user.b="2"}="x"`, `a=?`, `d/e/(1777)`,
	} {
		got, err := parseEntry(e)
		if err != nil {
			t.Errorf("%s: %v", e, err)
		} else if got.String() != e {
			t.Errorf("%s is written as %s", e, got)
		}
	}
}
