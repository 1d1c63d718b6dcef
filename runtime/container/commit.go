package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/layertar"
)

// layers are the directories of a container, open.
type layers struct {
	upper  *os.File
	lowers []*os.File // topmost first
}

func (l *layers) close() {
	closeAll(l.lowers)
	closeAll([]*os.File{l.upper})
}

// openLayers opens what the container's tree is made of.
func (c *Container) openLayers() (l *layers, err error) {
	m, err := c.s.images.Mount(c.r.ID)
	if err != nil {
		return nil, err
	}
	l = &layers{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.upper, err = os.Open(m.Upper); err != nil {
		return nil, err
	}
	paths := slices.Clone(c.r.Rootfs)
	for i := len(m.Lowers) - 1; i >= 0; i-- {
		paths = append([]string{filepath.Join(m.LayersDir, m.Lowers[i])}, paths...)
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return nil, err
		}
		l.lowers = append(l.lowers, f)
	}
	return l, nil
}

// Diff is what the container changed, by path. It works on the upper layer alone.
func (c *Container) Diff(ctx context.Context) ([]api.FilesystemChange, error) {
	l, err := c.openLayers()
	if err != nil {
		return nil, err
	}
	defer l.close()
	changes, err := layertar.Changes(l.upper, l.lowers)
	if err != nil {
		return nil, err
	}
	list := make([]api.FilesystemChange, 0, len(changes))
	for _, ch := range changes {
		kind := api.ChangeModify
		switch ch.Kind {
		case layertar.Added:
			kind = api.ChangeAdd
		case layertar.Deleted:
			kind = api.ChangeDelete
		}
		list = append(list, api.FilesystemChange{Kind: kind, Path: ch.Path})
	}
	return list, nil
}

// CommitOptions are those of docker commit.
type CommitOptions struct {
	Reference string   // name[:tag] for the image; empty for none
	Author    string   // "Name <mail>"
	Message   string   // the history's comment
	Changes   []string // Dockerfile instructions: those of changes
	NoPause   bool     // do not freeze a running container meanwhile
}

// Commit makes an image of the container and returns its ID, "sha256:...".
//
// Errors: ErrInvalid for a change that is none; ErrInvalid for a container made with --rootfs, whose layers no image has.
func (c *Container) Commit(ctx context.Context, o CommitOptions) (imageID string, err error) {
	if len(c.r.Rootfs) > 0 {
		return "", fail(ErrInvalid, "container %s was made with --rootfs: there is no image that its layer could be put on; "+
			"export writes all of it", c.r.Name)
	}
	config, err := imageConfig(c.r.Config)
	if err != nil {
		return "", err
	}
	if err := ApplyChanges(&config, o.Changes); err != nil {
		return "", err
	}
	if !o.NoPause {
		thaw, err := c.freeze(ctx)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, thaw()) }()
	}
	l, err := c.openLayers()
	if err != nil {
		return "", err
	}
	defer l.close()
	img, err := c.s.images.Commit(ctx, image.CommitOptions{
		Parent: digest.Digest(c.r.ImageID), Config: config, Author: o.Author, Ref: o.Reference,
		Layer: func(w io.Writer) error {
			return layertar.Pack(ctx, w, l.upper, l.lowers, layertar.PackOptions{})
		},
		History: ocispec.History{Author: o.Author, Comment: o.Message, CreatedBy: c.commandText()},
	})
	if err != nil {
		return "", err
	}
	return string(img.ID), nil
}

// commandText is the container's command as lists show it.
func (c *Container) commandText() string {
	return strings.Join(slices.Concat(c.r.Config.Entrypoint, c.r.Config.Cmd), " ")
}

// freeze pauses the container if it runs. thaw undoes that, and so does our end, whatever it comes by.
func (c *Container) freeze(ctx context.Context) (thaw func() error, err error) {
	nothing := func() error { return nil }
	st, err := c.state()
	if err != nil || st.Status != api.StateRunning {
		return nothing, err
	}
	con, err := c.dial()
	if err == nil {
		_, err = call(ctx, con, request{Op: opHold}, nil)
		if err != nil {
			_ = con.Close()
		}
	}
	err = c.noMonitor(err)
	if errors.Is(err, ErrNotRunning) || errors.Is(err, ErrConflict) {
		return nothing, nil // it has ended or was paused meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("%w (--pause=false commits it as it runs)", err)
	}
	return func() error {
		_, err := exchange(context.WithoutCancel(ctx), con, request{Op: opUnpause}, nil)
		if errors.Is(err, errNoMonitor) {
			return nil // it has ended
		}
		return err
	}, nil
}

// imageConfig is what an image keeps of a container's configuration: as Docker, all but what docker run has made up.
func imageConfig(c *api.Config) (dockerspec.DockerOCIImageConfig, error) {
	var out dockerspec.DockerOCIImageConfig
	b, err := json.Marshal(c)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

// changes are the instructions that applyChange knows: Docker's.
var changes = []string{"CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}

// applyChange applies one Dockerfile instruction to an image's configuration. inherited tells whether its command is the
// container's still: an entry point takes that off, and leaves one that was given with it.
//
// Errors: ErrInvalid.
// Source: moby builder/dockerfile/dispatchers.go, dispatchEntrypoint.
func applyChange(c *dockerspec.DockerOCIImageConfig, change string, inherited *bool) error {
	change = strings.TrimSpace(change)
	word, rest := change, ""
	if i := strings.IndexFunc(change, unicode.IsSpace); i >= 0 {
		word, rest = change[:i], strings.TrimSpace(change[i:])
	}
	word = strings.ToUpper(word)
	bad := func(format string, args ...any) error {
		return fail(ErrInvalid, "invalid change %q: "+format, append([]any{change}, args...)...)
	}
	if !slices.Contains(changes, word) {
		return bad("%s is not a valid change command: want one of %s", word, strings.Join(changes, ", "))
	}
	if rest == "" {
		return bad("%s requires at least one argument", word)
	}
	var err error
	switch word {
	case "CMD":
		c.Cmd, *inherited = shellForm(c, rest), false
	case "ENTRYPOINT":
		if c.Entrypoint = shellForm(c, rest); *inherited {
			c.Cmd = nil
		}
	case "HEALTHCHECK":
		c.Healthcheck, err = healthcheck(rest)
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	default:
		err = applyExpanded(c, word, rest)
	}
	if err != nil {
		return bad("%v", err)
	}
	return nil
}

// applyExpanded applies an instruction in which variables of the image's environment stand for their values.
func applyExpanded(c *dockerspec.DockerOCIImageConfig, word, rest string) (err error) {
	one := func(to *string) { *to, err = expandWord(rest, c.Env) }
	switch word {
	case "ENV":
		env := c.Env // as it is before this instruction
		err = keyValues(rest, env, func(k, v string) { c.Env = replaceEnv(c.Env, []string{k + "=" + v}) })
	case "LABEL":
		err = keyValues(rest, c.Env, func(k, v string) {
			c.Labels = united(c.Labels, map[string]string{k: v})
		})
	case "EXPOSE":
		var list []string
		list, err = expandWords(rest, c.Env)
		for _, p := range list {
			ports, err := network.ParsePortRange(p)
			if err != nil {
				return err
			}
			for port := range ports.All() {
				c.ExposedPorts = united(c.ExposedPorts, map[string]struct{}{port.String(): {}})
			}
		}
	case "STOPSIGNAL":
		if one(&c.StopSignal); err == nil {
			_, err = parseSignal(c.StopSignal)
		}
	case "USER":
		one(&c.User)
	case "VOLUME":
		for _, v := range execForm(rest, splitWords) {
			if v, err = expandWord(v, c.Env); err != nil {
				return err
			}
			c.Volumes = united(c.Volumes, map[string]struct{}{v: {}})
		}
	case "WORKDIR":
		var dir string
		if one(&dir); err != nil {
			return err
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = filepath.Clean(dir)
	}
	return err
}

// healthcheck reads "NONE", or "[--interval=DURATION ...] CMD command". The check is the image's, for who runs it.
func healthcheck(s string) (*dockerspec.HealthcheckConfig, error) {
	h := &dockerspec.HealthcheckConfig{}
	set := pflag.NewFlagSet("HEALTHCHECK", pflag.ContinueOnError)
	set.Usage = func() {} // it is no command
	set.SetOutput(io.Discard)
	set.SetInterspersed(false)
	set.DurationVar(&h.Interval, "interval", 0, "")
	set.DurationVar(&h.Timeout, "timeout", 0, "")
	set.DurationVar(&h.StartPeriod, "start-period", 0, "")
	set.DurationVar(&h.StartInterval, "start-interval", 0, "")
	set.IntVar(&h.Retries, "retries", 0, "")
	for strings.HasPrefix(s, "--") {
		flag, rest, _ := strings.Cut(s, " ")
		if err := set.Parse([]string{flag}); err != nil {
			return nil, err
		}
		s = strings.TrimSpace(rest)
	}
	if h.Interval < 0 || h.Timeout < 0 || h.StartPeriod < 0 || h.StartInterval < 0 || h.Retries < 0 {
		return nil, errors.New("a duration or a number is below 0")
	}
	kind, command, _ := strings.Cut(s, " ")
	command = strings.TrimSpace(command)
	switch strings.ToUpper(kind) {
	case "NONE":
		if command != "" || set.NFlag() > 0 {
			return nil, errors.New("NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if command == "" {
			return nil, errors.New("missing command after CMD")
		}
		h.Test = []string{"CMD-SHELL", command}
		if list := execForm(command, func(string) []string { return nil }); list != nil {
			h.Test = append([]string{"CMD"}, list...)
		}
	default:
		return nil, fmt.Errorf("unknown type %q (try CMD)", kind)
	}
	return h, nil
}

// execForm reads a JSON array of strings; anything else is read by other.
func execForm(s string, other func(string) []string) []string {
	var list []string
	if strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return other(s)
}

// shellForm is a command in either form: what is no JSON array is for the image's shell.
func shellForm(c *dockerspec.DockerOCIImageConfig, s string) []string {
	return execForm(s, func(s string) []string {
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), s)
	})
}

// keyValues reads "KEY=VALUE ...", or Docker's old "KEY VALUE", with the variables of env.
func keyValues(s string, env []string, set func(k, v string)) error {
	words := splitWords(s)
	if len(words) > 0 && !strings.Contains(words[0], "=") {
		if len(words) < 2 {
			return fmt.Errorf("%s must have a value", s)
		}
		words = []string{words[0] + "=" + strings.TrimSpace(strings.TrimPrefix(s, words[0]))}
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return fmt.Errorf("syntax error: can't find = in %q", w)
		}
		k, err := expandWord(k, env)
		if err == nil {
			v, err = expandWord(v, env)
		}
		if err != nil {
			return err
		}
		if k == "" {
			return fmt.Errorf("syntax error: no name in %q", w)
		}
		set(k, v)
	}
	return nil
}
