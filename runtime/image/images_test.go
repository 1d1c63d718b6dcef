package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// commitLayer commits a layer, made at the given second.
func commitLayer(t *testing.T, s *Store, parent digest.Digest, ref string, sec int64, labels map[string]string, entries ...entry) *Image {
	t.Helper()
	at := time.Unix(sec, 0).UTC()
	cfg := dockerspec.DockerOCIImageConfig{}
	cfg.Labels = labels
	img, err := s.Commit(context.Background(), CommitOptions{
		Parent: parent, Config: cfg, Ref: ref, Author: "me", History: ocispec.History{Created: &at, Comment: "c", CreatedBy: "sh"},
		Layer: func(w io.Writer) error { _, err := w.Write(layerTar(t, entries...)); return err },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.checkInvariants(t)
	return img
}

func tagsOf(list []imagetypes.Summary) string {
	var tags []string
	for _, l := range list {
		if len(l.RepoTags) == 0 {
			tags = append(tags, "<none>")
		}
		tags = append(tags, l.RepoTags...)
	}
	return strings.Join(tags, " ")
}

func list(t *testing.T, s *Store, o ListOptions) []imagetypes.Summary {
	t.Helper()
	l, err := s.List(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestGet(t *testing.T) {
	s := openStore(t)
	img := commitLayer(t, s, "", "docker.io/library/busybox:1.0", 1, nil, entry{name: "a"})
	if err := s.Tag("busybox:1.0", "example.org:5000/a/b"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"busybox:1.0", "library/busybox:1.0", "docker.io/busybox:1.0", "example.org:5000/a/b", "example.org:5000/a/b:latest",
		string(img.ID), img.ID.Encoded(), img.ID.Encoded()[:12], "sha256:" + img.ID.Encoded()[:6],
	} {
		if got, err := s.Get(name); err != nil || got.ID != img.ID {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"busybox": "No such image: busybox:latest", "none:1": "No such image: none:1",
		string(digest.FromString("x")):              "No such image: " + string(digest.FromString("x")),
		"busybox@" + string(digest.FromString("x")): "No such image: busybox@" + string(digest.FromString("x")),
	} {
		if _, err := s.Get(name); !errors.Is(err, ErrNotFound) || err.Error() != want {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if _, err := s.Get("UPPER"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a bad name: %v", err)
	}
	// IDs that begin alike.
	first := map[byte]*Image{}
	for i := range 20 {
		img := commitLayer(t, s, "", "", int64(i+2), nil, entry{name: "a"})
		c := img.ID.Encoded()[0]
		if first[c] == nil {
			first[c] = img
			continue
		}
		var ambiguous *AmbiguousError
		if _, err := s.Get("sha256:" + string(c)); !errors.As(err, &ambiguous) {
			t.Errorf("%c: %v", c, err)
		}
		return
	}
	t.Error("twenty IDs, and all begin differently")
}

func TestTags(t *testing.T) {
	s := openStore(t)
	one := commitLayer(t, s, "", "r:1", 1, nil, entry{name: "a"})
	two := commitLayer(t, s, "", "r:2", 2, nil, entry{name: "b"})
	if err := s.Tag("r:2", "r:1"); err != nil {
		t.Fatal(err)
	}
	if got := tagsOf(list(t, s, ListOptions{})); got != "r:1 r:2 <none>" {
		t.Errorf("after the tag moved: %s", got)
	}
	if got, err := s.Get("r:1"); err != nil || got.ID != two.ID {
		t.Errorf("r:1 is %v, %v", got, err)
	}
	refs, err := s.References(one.ID)
	if err != nil || len(refs) != 0 {
		t.Errorf("references %v, %v", refs, err)
	}
	for _, bad := range []string{"", "Upper", "a:b:c", "a@" + string(one.ID), one.ID.Encoded(), "sha256:abc"} {
		if err := s.Tag("r:1", bad); err == nil {
			t.Errorf("tag %q is taken", bad)
		}
	}
	if err := s.Tag("no", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("tag no: %v", err)
	}
	// A load that takes a name says whose it was.
	layer := layerTar(t, entry{name: "c"})
	got := load(t, s, dockerArchive(t, "c", []string{"r:1", "new:1"}, layer))
	if len(got) != 1 || got[0].Renamed["r:1"] != two.ID || len(got[0].Renamed) != 1 {
		t.Errorf("loaded %+v", got)
	}
	s.checkInvariants(t)
}

func TestList(t *testing.T) {
	s := openStore(t)
	base := commitLayer(t, s, "", "app/base:1", 100, map[string]string{"kind": "base"}, entry{name: "a", body: "12345"})
	mid := commitLayer(t, s, base.ID, "", 200, nil, entry{name: "b", body: "678"})
	top := commitLayer(t, s, mid.ID, "app/top:1", 300, map[string]string{"kind": "top", "x": ""}, entry{name: "c", body: "9"})
	loose := commitLayer(t, s, base.ID, "", 400, nil, entry{name: "d", body: "1234567"})
	if err := s.Tag("app/top:1", "other:2"); err != nil {
		t.Fatal(err)
	}
	s.Containers = func() ([]Container, error) {
		return []Container{{ID: "c1", Image: top.ID}, {ID: "c2", Image: top.ID}}, nil
	}
	for _, tt := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "<none> app/top:1 other:2 app/base:1"},
		{ListOptions{All: true}, "<none> app/top:1 other:2 <none> app/base:1"},
		{ListOptions{Filters: Filters{"dangling": {"true"}}}, "<none>"},
		{ListOptions{Filters: Filters{"dangling": {"false"}}}, "app/top:1 other:2 app/base:1"},
		{ListOptions{Filters: Filters{"label": {"kind"}}}, "app/top:1 other:2 app/base:1"},
		{ListOptions{Filters: Filters{"label": {"kind=top", "x"}}}, "app/top:1 other:2"},
		{ListOptions{Filters: Filters{"before": {"other:2"}}}, "app/base:1"},
		{ListOptions{Filters: Filters{"since": {"app/base:1"}}}, "<none> app/top:1 other:2"},
		{ListOptions{Filters: Filters{"until": {"250"}}}, "app/base:1"},
		{ListOptions{Filters: Filters{"reference": {"app/*"}}}, "app/top:1 app/base:1"},
		{ListOptions{Filters: Filters{"reference": {"other", "*/base"}}}, "other:2 app/base:1"},
		{ListOptions{Filters: Filters{"reference": {"none"}}}, ""},
	} {
		if got := tagsOf(list(t, s, tt.o)); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
	}
	for _, f := range []Filters{{"nothing": {"x"}}, {"dangling": {"perhaps"}}, {"before": {"none"}}, {"until": {"soon"}}, {"reference": {"["}}} {
		if _, err := s.List(ListOptions{Filters: f}); err == nil {
			t.Errorf("%v is taken", f)
		}
	}
	got := list(t, s, ListOptions{SharedSize: true})
	if l := got[0]; l.ID != string(loose.ID) || l.ParentID != string(base.ID) || l.Size != 12 || l.SharedSize != 5 || l.Containers != 0 || l.Created != 400 {
		t.Errorf("%+v", l)
	}
	if l := got[1]; l.ID != string(top.ID) || l.Size != 9 || l.SharedSize != 8 || l.Containers != 2 || l.Labels["kind"] != "top" {
		t.Errorf("%+v", l)
	}
	du, err := s.DiskUsage()
	if err != nil {
		t.Fatal(err)
	}
	if du.TotalCount != 4 || du.ActiveCount != 1 || du.TotalSize != 5+3+1+7 || du.Reclaimable != 7 {
		t.Errorf("disk usage %+v", du)
	}
}

func TestInspectAndHistory(t *testing.T) {
	s := openStore(t)
	base := commitLayer(t, s, "", "base:1", 100, nil, entry{name: "a", body: "12345"})
	img := commitLayer(t, s, base.ID, "top:1", 200, nil, entry{name: "b", body: "678"})
	empty := commitLayer(t, s, img.ID, "empty:1", 300, nil)
	if len(empty.Chain) != 2 || !empty.Spec.History[2].EmptyLayer {
		t.Errorf("a commit of nothing: %+v", empty.Spec)
	}
	in, err := s.Inspect("top:1")
	if err != nil {
		t.Fatal(err)
	}
	if in.ID != string(img.ID) || strings.Join(in.RepoTags, " ") != "top:1" || len(in.RepoDigests) != 0 || in.Comment != "c" ||
		in.Author != "me" || in.Os != "linux" || in.Architecture == "" || in.Size != 8 || in.Created != "1970-01-01T00:03:20Z" ||
		in.RootFS.Type != "layers" || len(in.RootFS.Layers) != 2 || time.Since(in.Metadata.LastTagTime) > time.Hour {
		t.Errorf("%+v", in)
	}
	d := in.GraphDriver.Data
	for key, name := range map[string]string{"LowerDir": "a", "UpperDir": "b"} {
		if _, err := os.Stat(filepath.Join(d[key], name)); err != nil {
			t.Errorf("GraphDriver.Data[%s]: %v", key, err)
		}
	}
	if filepath.Dir(d["MergedDir"]) != filepath.Dir(d["UpperDir"]) || filepath.Dir(d["WorkDir"]) != filepath.Dir(d["UpperDir"]) {
		t.Errorf("GraphDriver.Data %q", d)
	}
	steps, err := s.History("empty:1")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, h := range steps {
		id := short(strings.TrimPrefix(h.ID, "sha256:"))
		lines = append(lines, fmt.Sprint(id, h.Created, h.CreatedBy, h.Size, h.Comment, h.Tags))
	}
	want := []string{
		fmt.Sprint(short(empty.ID.Encoded()), 300, "sh", 0, "c", []string{"empty:1"}),
		fmt.Sprint(short(img.ID.Encoded()), 200, "sh", 3, "c", []string{"top:1"}),
		fmt.Sprint(short(base.ID.Encoded()), 100, "sh", 5, "c", []string{"base:1"}),
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("history\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	// Images that are saved together are loaded with what they were made from.
	s2 := openStore(t)
	load(t, s2, save(t, s, DockerArchive, "base:1", "top:1"))
	if steps, err := s2.History("top:1"); err != nil || len(steps) != 2 || steps[1].ID != string(base.ID) {
		t.Errorf("%+v, %v", steps, err)
	}
	// Of another only the last step is known.
	load(t, s, dockerArchive(t, "c", []string{"loaded:1"}, layerTar(t, entry{name: "x"}), layerTar(t, entry{name: "y"})))
	if steps, err := s.History("loaded:1"); err != nil || len(steps) != 2 || steps[1].ID != "<missing>" {
		t.Errorf("%+v, %v", steps, err)
	}
}

func TestRemove(t *testing.T) {
	for _, tt := range []struct {
		name    string
		remove  string // "ID" is replaced by the ID of the image top
		force   bool
		in      string // what container c1 is of: top; and "running"
		err     string // "ID" is replaced
		records string // kinds of what is reported
		left    string
	}{
		{"one of two names", "top:1", false, "", "", "untagged top:1", "top:2 base:1"},
		{"an unknown name", "none", false, "", "No such image: none:latest", "", "top:1 top:2 base:1"},
		{"an ID with two names", "ID", false, "", "conflict: unable to delete ID (must be forced) - image is referenced in multiple repositories", "", "top:1 top:2 base:1"},
		{"the same with force", "ID", true, "", "", "untagged top:1, untagged top:2, deleted image, deleted layer", "base:1"},
		{"an ID with one name", "BASE", false, "", "conflict: unable to delete BASE (cannot be forced) - image has dependent child images", "", "top:1 top:2 base:1"},
		{"one of two names, in use", "top:1", false, "top", "", "untagged top:1", "top:2 base:1"},
		{"an ID in use by a stopped container, with force", "ID", true, "top", "", "untagged top:1, untagged top:2, deleted image, deleted layer", "base:1"},
		{"an ID in use by a running container, with force", "ID", true, "top running",
			"conflict: unable to delete ID (cannot be forced) - image is being used by running container 0123456789ab", "", "top:1 top:2 base:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			base := commitLayer(t, s, "", "base:1", 1, nil, entry{name: "a"})
			top := commitLayer(t, s, base.ID, "top:1", 2, nil, entry{name: "b"})
			if err := s.Tag("top:1", "top:2"); err != nil {
				t.Fatal(err)
			}
			if tt.in != "" {
				s.Containers = func() ([]Container, error) {
					return []Container{{ID: strings.Repeat("0123456789abcdef", 4), Image: top.ID, Running: strings.Contains(tt.in, "running")}}, nil
				}
			}
			ids := strings.NewReplacer("BASE", short(base.ID.Encoded()), "ID", short(top.ID.Encoded()))
			records, err := s.Remove(ids.Replace(tt.remove), RemoveOptions{Force: tt.force})
			checkRemoved(t, s, records, err, ids.Replace(tt.err), tt.records, tt.left)
		})
	}
	t.Run("the only name, in use", func(t *testing.T) {
		s := openStore(t)
		img := commitLayer(t, s, "", "x:1", 1, nil, entry{name: "a"})
		s.Containers = func() ([]Container, error) { return []Container{{ID: "0123456789abcdef", Image: img.ID}}, nil }
		id := short(img.ID.Encoded())
		records, err := s.Remove("x:1", RemoveOptions{})
		checkRemoved(t, s, records, err, `conflict: unable to remove repository reference "x:1" (must force) - container 0123456789ab is using its referenced image `+id, "", "x:1")
		records, err = s.Remove(id, RemoveOptions{})
		checkRemoved(t, s, records, err, "conflict: unable to delete "+id+" (must be forced) - image is being used by stopped container 0123456789ab", "", "x:1")
		records, err = s.Remove("x:1", RemoveOptions{Force: true})
		checkRemoved(t, s, records, err, "", "untagged x:1, deleted image, deleted layer", "")
	})
	t.Run("untagged parents go too", func(t *testing.T) {
		for _, noPrune := range []bool{false, true} {
			s := openStore(t)
			base := commitLayer(t, s, "", "", 1, nil, entry{name: "a"})
			commitLayer(t, s, base.ID, "top:1", 2, nil, entry{name: "b"})
			records, err := s.Remove("top:1", RemoveOptions{NoPrune: noPrune})
			if noPrune {
				checkRemoved(t, s, records, err, "", "untagged top:1, deleted image, deleted layer", "<none>")
			} else {
				checkRemoved(t, s, records, err, "", "untagged top:1, deleted image, deleted image, deleted layer, deleted layer", "")
			}
		}
	})
}

func checkRemoved(t *testing.T, s *Store, records []imagetypes.DeleteResponse, err error, wantErr, want, left string) {
	t.Helper()
	s.checkInvariants(t)
	if fmt.Sprint(err) != wantErr && (err != nil || wantErr != "") {
		t.Errorf("error %q, want %q", fmt.Sprint(err), wantErr)
	}
	var got []string
	for i, r := range records {
		switch {
		case r.Untagged != "":
			got = append(got, "untagged "+r.Untagged)
		case strings.Contains(want, "deleted layer") && i >= len(records)-strings.Count(want, "deleted layer"):
			got = append(got, "deleted layer")
		default:
			got = append(got, "deleted image")
		}
	}
	if strings.Join(got, ", ") != want {
		t.Errorf("records %q, want %q", got, want)
	}
	if got := tagsOf(list(t, s, ListOptions{All: true})); got != left {
		t.Errorf("left %q, want %q", got, left)
	}
}

func TestPrune(t *testing.T) {
	make := func(t *testing.T) *Store {
		s := openStore(t)
		base := commitLayer(t, s, "", "", 100, nil, entry{name: "a", body: "1"})
		commitLayer(t, s, base.ID, "", 200, map[string]string{"keep": ""}, entry{name: "b", body: "22"})
		commitLayer(t, s, "", "tagged:1", 300, nil, entry{name: "c", body: "333"})
		used := commitLayer(t, s, "", "used:1", 400, nil, entry{name: "d", body: "4444"})
		s.Containers = func() ([]Container, error) { return []Container{{ID: "c1", Image: used.ID}}, nil }
		return s
	}
	for _, tt := range []struct {
		name  string
		o     PruneOptions
		freed uint64
		left  string
	}{
		{"dangling", PruneOptions{}, 3, "used:1 tagged:1"},
		{"all", PruneOptions{All: true}, 6, "used:1"},
		{"until", PruneOptions{All: true, Filters: Filters{"until": {"250"}}}, 3, "used:1 tagged:1"},
		{"label", PruneOptions{All: true, Filters: Filters{"label!": {"keep"}}}, 3, "used:1 <none> <none>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := make(t)
			r, err := s.Prune(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			s.checkInvariants(t)
			if r.SpaceReclaimed != tt.freed {
				t.Errorf("freed %d, want %d: %+v", r.SpaceReclaimed, tt.freed, r.ImagesDeleted)
			}
			if got := tagsOf(list(t, s, ListOptions{All: true})); got != tt.left {
				t.Errorf("left %q, want %q", got, tt.left)
			}
		})
	}
}

func TestImport(t *testing.T) {
	s := openStore(t)
	text := layerTar(t, entry{name: "etc/"}, entry{name: "etc/x", body: "12"}, entry{name: "etc/x", body: "345"}) // read twice: lossy
	path := filepath.Join(t.TempDir(), "x.tar")
	writeFile(t, path, string(gz(t, text)))
	cfg := dockerspec.DockerOCIImageConfig{}
	cfg.Cmd = []string{"/bin/x"}
	for _, o := range []ImportOptions{{Path: path}, {Stdin: bytes.NewReader(text)}, {Stdin: bytes.NewReader(zst(t, text))}} {
		o.Config, o.Ref = cfg, "imported"
		img, err := s.Import(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		s.checkInvariants(t)
		want := "Imported from " + orDash(o.Path)
		if len(img.Chain) != 1 || img.Spec.RootFS.DiffIDs[0] != digest.FromBytes(text) || img.Config.Cmd[0] != "/bin/x" ||
			img.Spec.History[0].Comment != want || img.Spec.OS != "linux" {
			t.Errorf("%+v", img.Spec)
		}
		if got, err := s.Get("imported:latest"); err != nil || got.ID != img.ID {
			t.Error(err)
		}
		if got := filesOf(t, save(t, s, DockerArchive, "imported"))[blobName(digest.FromBytes(text))]; !bytes.Equal(got, text) {
			t.Error("the layer does not come back")
		}
	}
	if layers, _ := s.names("layerdb/sha256"); len(layers) != 1 {
		t.Errorf("%d layers, want 1", len(layers))
	}
	for _, o := range []ImportOptions{{Path: "/no/such"}, {Stdin: strings.NewReader("no tar at all, but a text that is long enough to be one")},
		{}, {Stdin: bytes.NewReader(text), Ref: "Bad"}} {
		if _, err := s.Import(context.Background(), o); err == nil {
			t.Errorf("%+v is imported", o)
		} else if testing.Verbose() {
			t.Log(err)
		}
		s.checkInvariants(t)
	}
}

func TestCommitFails(t *testing.T) {
	s := openStore(t)
	_, err := s.Commit(context.Background(), CommitOptions{Layer: func(w io.Writer) error {
		_, _ = w.Write(layerTar(t, entry{name: "a"})[:600])
		return errors.New("the disk is gone")
	}})
	if err == nil || !strings.HasPrefix(err.Error(), "commit: layer new (1 of 1): ") || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("%v", err)
	}
	s.checkInvariants(t)
	if _, err := s.Commit(context.Background(), CommitOptions{Parent: digest.FromString("x")}); !errors.Is(err, ErrNotFound) {
		t.Errorf("on no image: %v", err)
	}
	s.checkInvariants(t)
	if got := list(t, s, ListOptions{All: true}); len(got) > 0 {
		t.Errorf("left %+v", got)
	}
}
