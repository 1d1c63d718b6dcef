package main

import (
	"strings"
	"testing"
)

func TestShow(t *testing.T) {
	type object struct {
		Name   string
		Labels map[string]string `json:"labels"`
		List   []string
	}
	o := object{Name: "a b", Labels: map[string]string{"k": "v"}, List: []string{"x", "y"}}
	tests := []struct{ format, want, err string }{
		{format: "json", want: `[{"Name":"a b","labels":{"k":"v"},"List":["x","y"]}]` + "\n"},
		{format: "", want: "[\n    {\n        \"Name\": \"a b\",\n        \"labels\": {\n            \"k\": \"v\"\n        },\n" +
			"        \"List\": [\n            \"x\",\n            \"y\"\n        ]\n    }\n]\n"},
		{format: "{{.Name}}", want: "a b\n"},
		{format: "{{json .List}}", want: `["x","y"]` + "\n"},
		{format: `{{join .List ","}} {{upper .Name}} {{index .Labels "k"}}`, want: "x,y A B v\n"},
		{format: `{{title .Name}} {{lower "X"}} {{(split .Name " ")}} {{truncate .Name 1}} {{pad .Name 1 2}}|`,
			want: "A B x [a b] a  a b  |\n"},
		{format: "{{.labels.k}}", want: "v\n"}, // by the name in the JSON
		{format: "{{.Nothing}}", err: "template parsing error"},
		{format: "{{", err: "template parsing error"},
	}
	for _, tt := range tests {
		t.Run(tt.format, func(t *testing.T) {
			var out strings.Builder
			s, err := newShow(tt.format)
			if err == nil {
				err = s.add(o)
			}
			if err == nil {
				err = s.flush(&out)
			}
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("%v, want %q", err, tt.err)
			case tt.err == "" && (err != nil || out.String() != tt.want):
				t.Errorf("%v, %q; want %q", err, out.String(), tt.want)
			}
		})
	}
}

func TestShowNothing(t *testing.T) {
	for format, want := range map[string]string{"": "[]\n", "json": "[]\n", "{{.Name}}": "\n"} {
		s, err := newShow(format)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := s.flush(&out); err != nil || out.String() != want {
			t.Errorf("%q: %v, %q; want %q", format, err, out.String(), want)
		}
	}
}
