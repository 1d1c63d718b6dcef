package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/template"

	"github.com/docker/cli/templates"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
	"github.com/laminafs/lamina/runtime/image"
	"github.com/laminafs/lamina/runtime/volume"
)

// inspected is one object as it is shown, or the error that says why not.
type inspected func(ctx context.Context, name string) (any, error)

func (a *app) inspectCommand() *cobra.Command {
	var format, kind string
	var size bool
	cmd := command("inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on containers, images and volumes",
		between(1, -1), "", func(cmd *cobra.Command, args []string) error {
			get, err := a.inspector(kind, size, cmd.Flags().Changed("type"))
			if err != nil {
				return err
			}
			return a.inspect(cmd.Context(), args, format, get)
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&kind, "type", "", `Only inspect objects of the given type ("container", "image", "volume")`)
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	a.completeObjects(cmd)
	return cmd
}

// inspector finds objects of one kind, or of the first kind that has one of the name.
func (a *app) inspector(kind string, size, given bool) (inspected, error) {
	switch {
	case kind == "container":
		return a.inspectContainer(size), nil
	case kind == "image":
		return a.inspectImage, nil
	case kind == "volume":
		return a.inspectVolume, nil
	case kind == "" && given:
		return nil, errors.New(`type is empty: must be one of "container", "image", "volume"`)
	case kind != "":
		return nil, fmt.Errorf(`unknown type: %q: must be one of "container", "image", "volume"`, kind)
	}
	return func(ctx context.Context, name string) (any, error) {
		for _, get := range []inspected{a.inspectContainer(size), a.inspectImage, a.inspectVolume} {
			v, err := get(ctx, name)
			if err == nil || !notThere(err) {
				return v, err
			}
		}
		return nil, errors.New("No such object: " + name) // as Docker words it
	}, nil
}

// notThere tells that an error is about the name, so that another kind of object may have it.
func notThere(err error) bool {
	return errors.Is(err, container.ErrNotFound) || errors.Is(err, container.ErrInvalid) ||
		errors.Is(err, image.ErrNotFound) || errors.Is(err, volume.ErrNotFound)
}

func (a *app) inspectContainer(size bool) inspected {
	return func(ctx context.Context, name string) (any, error) {
		c, err := a.container(name)
		if err != nil {
			return nil, err
		}
		return c.Inspect(ctx, size)
	}
}

func (a *app) containerInspectCommand() *cobra.Command {
	var format string
	var size bool
	cmd := command("inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers",
		between(1, -1), "", func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), args, format, a.inspectContainer(size))
		})
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	a.completeContainers(cmd, -1, all)
	return cmd
}

// inspect shows all objects that there are, and then fails where one is not.
func (a *app) inspect(ctx context.Context, names []string, format string, get inspected) error {
	show, err := newShow(format)
	if err != nil {
		return &exitStatus{64, err} // EX_USAGE, as Docker
	}
	var errs []error
	for _, n := range names {
		v, err := get(ctx, n)
		if err == nil {
			err = show.add(v)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := show.flush(a.out); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// show collects objects: as an array of JSON, or each by a template.
type show struct {
	template *template.Template // nil for JSON
	compact  bool
	objects  []any
	text     bytes.Buffer
}

func newShow(format string) (*show, error) {
	s := &show{compact: format == "json", objects: []any{}}
	if format == "" || s.compact {
		return s, nil
	}
	t, err := templates.Parse(format)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	s.template = t
	return s, nil
}

func (s *show) add(v any) error {
	if s.template == nil {
		s.objects = append(s.objects, v)
		return nil
	}
	var line bytes.Buffer
	if err := s.template.Execute(&line, v); err != nil {
		// A template may use the names of the JSON, where they are not those of the fields.
		if line, err = s.byJSON(v); err != nil {
			return err
		}
	}
	line.WriteByte('\n')
	_, err := line.WriteTo(&s.text)
	return err
}

func (s *show) byJSON(v any) (line bytes.Buffer, err error) {
	text, err := json.Marshal(v)
	if err != nil {
		return line, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var node any
	if err := dec.Decode(&node); err != nil {
		return line, err
	}
	if err := s.template.Option("missingkey=error").Execute(&line, node); err != nil {
		return line, fmt.Errorf("template parsing error: %w", err)
	}
	return line, nil
}

func (s *show) flush(w io.Writer) error {
	if s.template != nil {
		if s.text.Len() == 0 {
			s.text.WriteByte('\n')
		}
		_, err := s.text.WriteTo(w)
		return err
	}
	text, err := json.MarshalIndent(s.objects, "", "    ")
	if s.compact {
		text, err = json.Marshal(s.objects)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}
