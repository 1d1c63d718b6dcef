package uniontest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Script is one behaviour of a union: the layers, what is done to the merged tree, and what must then be seen. The
// format is described in testdata/scripts/README.md.
type Script struct {
	File string // base name without .txt
	Name string
	Line int    // in File, of the name
	Doc  string // the comment above the layers

	Needs    string            // root or chown: what an identity must be able to do
	Only     []string          // systems that the case is for; empty: all
	NotOn    map[string]string // systems that behave otherwise, and why
	Opts     []string          // further mount options of laminafs
	Redirect string            // on, off or both: values of redirect_dir; empty: any
	Format   string            // wh or overlay: the only format of whiteouts; empty: any
	ReadOnly bool              // no upper
	Damaged  bool              // not all of the merged tree can be read

	Lowers map[int][]Entry // by number, 1 is topmost
	Upper  []Entry
	Steps  []Step
}

// Step is one line that does or checks something.
type Step struct {
	Line   int
	Cond   []string // all must hold for the configuration, else the step is left out
	Do     string   // command; merged, upper for the checks of a tree
	Args   []string
	Raw    string   // of sh, what the shell gets
	Expect []string // what follows ->; nil where nothing does
	Tree   []Entry  // of a check
}

// Entry is one object of a layer, or what a check expects of one.
type Entry struct {
	Path    string
	Type    byte // one of "fdlpscb" as in ls -l ('f' for a file), 'h' a further name of Target, 'w' a whiteout alone
	Content string
	Sum     string // of content too long to keep, in place of it
	Size    int64
	Sparse  bool
	Any     bool // a check of a file looks at no content
	Target  string
	Rdev    uint64
	Marks   []string // as they are spelled in scripts, sorted

	Mode   opt // permission bits
	UID    opt
	GID    opt
	Mtime  opt // seconds
	Nlink  opt
	Xattrs map[string]string // nil: none given
}

// opt is a number that may be left open.
type opt struct {
	Set bool
	V   int64
}

func some[T uint32 | uint64 | int64](v T) opt { return opt{true, int64(v)} }

// smallContent is the longest content that is compared and shown as text.
const smallContent = 4096

// parseScripts reads the cases of a file.
func parseScripts(file, text string) ([]*Script, error) {
	var all []*Script
	var s *Script
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if name, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSpace(strings.TrimSuffix(name, "--"))
			s = &Script{File: file, Name: name, Line: n, Lowers: map[int][]Entry{}, NotOn: map[string]string{}}
			all = append(all, s)
			continue
		}
		if line == "" {
			continue
		}
		if s == nil {
			if strings.HasPrefix(line, "#") {
				continue // what the file is about
			}
			return nil, fmt.Errorf("%s.txt:%d: no case begins above this line", file, n)
		}
		if err := s.parseLine(n, line); err != nil {
			return nil, fmt.Errorf("%s.txt:%d: %w", file, n, err)
		}
	}
	return all, sc.Err()
}

var (
	keyLine = regexp.MustCompile(`^([a-z-]+)([0-9]*)(?:\[([^]]*)\])?:(?:\s+(.*))?$`)
	repeat  = regexp.MustCompile(`\{(.)\*([0-9]+)\}`)
)

func (s *Script) parseLine(n int, line string) error {
	if text, ok := strings.CutPrefix(line, "#"); ok {
		if len(s.Steps) == 0 {
			s.Doc = strings.TrimSpace(s.Doc + " " + strings.TrimSpace(text))
		}
		return nil
	}
	line = repeat.ReplaceAllStringFunc(line, func(m string) string {
		f := repeat.FindStringSubmatch(m)
		count, _ := strconv.Atoi(f[2])
		return strings.Repeat(f[1], count)
	})
	if f := keyLine.FindStringSubmatch(line); f != nil {
		return s.parseKey(n, f[1], f[2], f[3], f[4])
	}
	st := Step{Line: n}
	if rest, ok := strings.CutPrefix(line, "["); ok {
		cond, cmd, ok := strings.Cut(rest, "]")
		if !ok {
			return fmt.Errorf("no ] after the condition")
		}
		st.Cond, line = splitList(cond), strings.TrimSpace(cmd)
	}
	cmd, expect, has := cutExpect(line)
	tokens, err := tokenize(cmd)
	if err != nil {
		return err
	}
	if len(tokens) == 0 {
		return fmt.Errorf("no command")
	}
	st.Do, st.Args = tokens[0], unquoteAll(tokens[1:])
	if st.Do == "sh" {
		st.Raw = strings.TrimSpace(strings.TrimPrefix(cmd, "sh"))
	}
	if has {
		tokens, err := tokenize(expect)
		if err != nil {
			return err
		}
		st.Expect = unquoteAll(tokens)
		if st.Expect == nil {
			st.Expect = []string{}
		}
	}
	s.Steps = append(s.Steps, st)
	return nil
}

// cutExpect splits a command from what it expects, at the last " -> ".
func cutExpect(line string) (cmd, expect string, ok bool) {
	if strings.HasSuffix(line, " ->") {
		return strings.TrimSuffix(line, " ->"), "", true
	}
	if i := strings.LastIndex(line, " -> "); i >= 0 {
		return line[:i], line[i+4:], true
	}
	return line, "", false
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (s *Script) parseKey(n int, key, number, cond, value string) error {
	tree := func() ([]Entry, error) { return parseEntries(value) }
	switch key {
	case "lower":
		i := 1
		if number != "" {
			i, _ = strconv.Atoi(number)
		}
		e, err := tree()
		s.Lowers[i] = append(s.Lowers[i], e...)
		return err
	case "upper", "merged":
		e, err := tree()
		if err != nil {
			return err
		}
		if key == "upper" && cond == "" && len(s.Steps) == 0 {
			s.Upper = append(s.Upper, e...)
			return nil
		}
		if i := len(s.Steps) - 1; i >= 0 && s.Steps[i].Do == key && s.Steps[i].Tree != nil &&
			strings.Join(s.Steps[i].Cond, ",") == strings.Join(splitList(cond), ",") {
			s.Steps[i].Tree = append(s.Steps[i].Tree, e...)
			return nil
		}
		if e == nil {
			e = []Entry{}
		}
		s.Steps = append(s.Steps, Step{Line: n, Do: key, Cond: splitList(cond), Tree: e})
	case "needs":
		s.Needs = value
	case "only":
		s.Only = splitList(value)
	case "not-on":
		sys, why, _ := strings.Cut(value, " ")
		why, err := strconv.Unquote(strings.TrimSpace(why))
		if err != nil {
			return fmt.Errorf("not-on: SYSTEM \"reason\": %w", err)
		}
		s.NotOn[sys] = why
	case "opts":
		s.Opts = strings.Fields(value)
	case "redirect":
		s.Redirect = value
	case "format":
		s.Format = value
	case "read-only":
		s.ReadOnly = true
	case "damaged":
		s.Damaged = true
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	return nil
}

// tokenize splits at spaces that are not within quotes.
func tokenize(line string) ([]string, error) {
	var out []string
	var b strings.Builder
	quoted, any := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\' && i+1 < len(line):
			b.WriteByte(c)
			i++
			b.WriteByte(line[i])
		case c == '"':
			quoted, any = !quoted, true
			b.WriteByte(c)
		case !quoted && (c == ' ' || c == '\t'):
			if any || b.Len() > 0 {
				out = append(out, b.String())
			}
			b.Reset()
			any = false
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if any || b.Len() > 0 {
		out = append(out, b.String())
	}
	return out, nil
}

var quotedPart = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// unquoteAll turns the quoted parts of each token into what they mean.
func unquoteAll(tokens []string) []string {
	var out []string
	for _, t := range tokens {
		out = append(out, quotedPart.ReplaceAllStringFunc(t, func(q string) string {
			if s, err := strconv.Unquote(q); err == nil {
				return s
			}
			return q
		}))
	}
	return out
}

func parseEntries(line string) ([]Entry, error) {
	tokens, err := tokenize(line)
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, t := range tokens {
		e, err := parseEntry(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// parseEntry reads NAME[/][(ATTRIBUTES)][{XATTRS}][=VALUE | ->TARGET].
func parseEntry(t string) (Entry, error) {
	e := Entry{Type: 'f'}
	if strings.HasPrefix(t, `"`) {
		q := quotedPart.FindString(t)
		name, err := strconv.Unquote(q)
		if err != nil {
			return e, err
		}
		e.Path, t = name, t[len(q):]
		if strings.HasPrefix(t, "/") {
			e.Path, t = e.Path+"/", t[1:]
		}
	} else {
		i := 0
		for i < len(t) && !strings.ContainsRune("=({", rune(t[i])) && !strings.HasPrefix(t[i:], "->") {
			i++
		}
		e.Path, t = t[:i], t[i:]
	}
	if name, ok := strings.CutSuffix(e.Path, "/"); ok {
		e.Path, e.Type = name, 'd'
	}
	for t != "" {
		switch {
		case t[0] == '(':
			list, rest, ok := strings.Cut(t[1:], ")")
			if !ok {
				return e, fmt.Errorf("no )")
			}
			if err := e.parseAttrs(list); err != nil {
				return e, err
			}
			t = rest
		case t[0] == '{':
			i := strings.LastIndex(t, "}")
			if i < 0 {
				return e, fmt.Errorf("no }")
			}
			if err := e.parseXattrs(t[1:i]); err != nil {
				return e, err
			}
			t = t[i+1:]
		case strings.HasPrefix(t, "->"):
			e.Type, e.Target = 'l', unquoteAll([]string{t[2:]})[0]
			return e, nil
		case t[0] == '=':
			return e, e.parseValue(t[1:])
		default:
			return e, fmt.Errorf("unexpected %q", t)
		}
	}
	return e, nil
}

func (e *Entry) parseAttrs(list string) error {
	for _, a := range strings.Split(list, ",") {
		if u, g, ok := strings.Cut(a, ":"); ok {
			uid, err1 := strconv.ParseUint(u, 10, 32)
			gid, err2 := strconv.ParseUint(g, 10, 32)
			if err1 != nil || err2 != nil {
				return fmt.Errorf("owner %q is not UID:GID", a)
			}
			e.UID, e.GID = some(uid), some(gid)
			continue
		}
		if v, ok := strings.CutPrefix(a, "mtime="); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return err
			}
			e.Mtime = some(n)
			continue
		}
		if v, ok := strings.CutPrefix(a, "nlink="); ok {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return err
			}
			e.Nlink = some(n)
			continue
		}
		mode, err := strconv.ParseUint(a, 8, 16)
		if err != nil {
			return fmt.Errorf("attribute %q is not an octal mode, UID:GID, mtime= or nlink=", a)
		}
		e.Mode = some(mode)
	}
	return nil
}

func (e *Entry) parseXattrs(list string) error {
	e.Xattrs = map[string]string{}
	for list != "" {
		name, rest, ok := strings.Cut(list, "=")
		q := quotedPart.FindString(rest)
		v, err := strconv.Unquote(q)
		if !ok || err != nil || !strings.HasPrefix(rest, q) {
			return fmt.Errorf("want {NAME=\"value\",...}")
		}
		e.Xattrs[name] = v
		list = strings.TrimPrefix(rest[len(q):], ",")
	}
	return nil
}

// Marks, as scripts spell them: the generic ones are written in the format of the run.
var marks = map[string]bool{
	"whiteout": true, "wh": true, "chardev": true, "whx": true,
	"opaque": true, "opq": true, "opq-legacy": true, "opaque-user": true, "opaque-trusted": true, "opaque-fo": true,
	"opaque-x": true, "opaque?": true, // the last in a check only: there may be one
}

func (e *Entry) parseValue(v string) error {
	if strings.HasPrefix(v, `"`) {
		s, err := strconv.Unquote(v)
		e.setContent(s)
		return err
	}
	for _, m := range strings.Split(v, "+") {
		if marks[m] || strings.HasPrefix(m, "redirect:") {
			e.Marks = append(e.Marks, m)
			if e.Type == 'f' {
				e.Type = 'w'
			}
		}
	}
	if e.Marks != nil {
		slices.Sort(e.Marks)
		return nil
	}
	kind, arg, _ := strings.Cut(v, ":")
	switch kind {
	case "?":
		e.Any = true
	case "link":
		e.Type, e.Target = 'h', arg
	case "fifo":
		e.Type = 'p'
	case "sock":
		e.Type = 's'
	case "char", "block":
		e.Type = kind[0]
		major, minor, _ := strings.Cut(arg, ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("device %q is not MAJOR:MINOR", arg)
		}
		e.Rdev = unix.Mkdev(uint32(ma), uint32(mi))
	case "sparse":
		n, err := parseSize(arg)
		e.Size, e.Sparse = n, true
		return err
	case "zeros", "rand":
		c, err := content(v)
		e.setContent(c)
		return err
	default:
		return fmt.Errorf("unknown value %q", v)
	}
	return nil
}

func (e *Entry) setContent(s string) { e.Content, e.Size = s, int64(len(s)) }

// content is what zeros:SIZE and rand:SEED:SIZE stand for; anything else stands for itself.
func content(v string) (string, error) {
	f := strings.Split(v, ":")
	switch {
	case f[0] == "zeros" && len(f) == 2:
		n, err := parseSize(f[1])
		return strings.Repeat("\x00", int(n)), err
	case f[0] == "rand" && len(f) == 3:
		seed, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return "", err
		}
		n, err := parseSize(f[2])
		r := rand.New(rand.NewPCG(seed, 0))
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b), err
	}
	return v, nil
}

// parseSize reads a number of bytes, with K, M, G or T for powers of 1024.
func parseSize(s string) (int64, error) {
	shift := 0
	if i := strings.IndexByte("KMGT", s[len(s)-1]); i >= 0 {
		s, shift = s[:len(s)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n << shift, err
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// String writes e as a script would.
func (e Entry) String() string {
	name := e.Path
	if strings.ContainsAny(name, " \"=({\\\t\n") || name != strconv.Quote(name)[1:len(strconv.Quote(name))-1] {
		name = strconv.Quote(name)
	}
	if e.Type == 'd' {
		name += "/"
	}
	var attrs []string
	if e.Mode.Set {
		attrs = append(attrs, fmt.Sprintf("%04o", e.Mode.V))
	}
	if e.UID.Set {
		attrs = append(attrs, fmt.Sprintf("%d:%d", e.UID.V, e.GID.V))
	}
	if e.Mtime.Set {
		attrs = append(attrs, fmt.Sprintf("mtime=%d", e.Mtime.V))
	}
	if e.Nlink.Set {
		attrs = append(attrs, fmt.Sprintf("nlink=%d", e.Nlink.V))
	}
	if attrs != nil {
		name += "(" + strings.Join(attrs, ",") + ")"
	}
	if e.Xattrs != nil {
		var list []string
		for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
			list = append(list, fmt.Sprintf("%s=%q", k, e.Xattrs[k]))
		}
		name += "{" + strings.Join(list, ",") + "}"
	}
	switch e.Type {
	case 'l':
		return name + "->" + e.Target
	case 'h':
		return name + "=link:" + e.Target
	case 'p':
		return name + "=fifo"
	case 's':
		return name + "=sock"
	case 'c':
		return fmt.Sprintf("%s=char:%d:%d", name, unix.Major(e.Rdev), unix.Minor(e.Rdev))
	case 'b':
		return fmt.Sprintf("%s=block:%d:%d", name, unix.Major(e.Rdev), unix.Minor(e.Rdev))
	case 'f':
		switch {
		case e.Any:
			return name + "=?"
		case e.Sparse:
			return fmt.Sprintf("%s=sparse:%d", name, e.Size)
		case e.Sum != "" || len(e.Content) > 200:
			return fmt.Sprintf("%s=<%d bytes, sha256 %.12s>", name, e.Size, e.sum())
		}
		return fmt.Sprintf("%s=%q", name, e.Content)
	}
	if e.Marks != nil {
		name += "=" + strings.Join(e.Marks, "+")
	}
	return name
}

func (e Entry) sum() string {
	if e.Sum != "" {
		return e.Sum
	}
	return sum(e.Content)
}

// withParents adds the directories that the paths of entries imply, and sorts by path.
func withParents(entries []Entry) []Entry {
	have := map[string]bool{}
	for _, e := range entries {
		if e.Type == 'd' {
			have[e.Path] = true
		}
	}
	out := slices.Clone(entries)
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "." && dir != "/" && !have[dir]; dir = path.Dir(dir) {
			have[dir] = true
			out = append(out, Entry{Path: dir, Type: 'd'})
		}
	}
	slices.SortStableFunc(out, func(a, b Entry) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return int(b.Type) - int(a.Type)
	})
	return out
}

// usesMark reports whether any layer as given has a mark of which f holds.
func (s *Script) usesMark(f func(string) bool) bool {
	for _, l := range s.layers() {
		for _, e := range l {
			if slices.ContainsFunc(e.Marks, f) {
				return true
			}
		}
	}
	return false
}

func (s *Script) layers() [][]Entry {
	out := [][]Entry{s.Upper}
	for _, i := range slices.Sorted(maps.Keys(s.Lowers)) {
		out = append(out, s.Lowers[i])
	}
	return out
}

// LoadScripts reads the files of a directory, in order of their names.
func LoadScripts(dir string) ([]*Script, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []*Script
	seen := map[string]bool{}
	for _, f := range files {
		base, ok := strings.CutSuffix(f.Name(), ".txt")
		if !ok {
			continue
		}
		b, err := os.ReadFile(path.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		scripts, err := parseScripts(base, string(b))
		if err != nil {
			return nil, err
		}
		for _, s := range scripts {
			if id := s.File + "/" + s.Name; seen[id] {
				return nil, fmt.Errorf("%s.txt:%d: a second case is called %q", s.File, s.Line, s.Name)
			} else {
				seen[id] = true
			}
		}
		all = append(all, scripts...)
	}
	return all, nil
}
