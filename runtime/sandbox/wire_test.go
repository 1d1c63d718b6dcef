package sandbox

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// shape describes a type as its JSON shows it.
func shape(b *strings.Builder, t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		fmt.Fprintf(b, "%s ", t.Kind())
		shape(b, t.Elem())
	case reflect.Map:
		shape(b, t.Key())
		shape(b, t.Elem())
	case reflect.Struct:
		b.WriteString("{")
		for i := range t.NumField() {
			f := t.Field(i)
			fmt.Fprintf(b, "%s %q ", f.Name, f.Tag)
			shape(b, f.Type)
		}
		b.WriteString("}")
	default:
		fmt.Fprintf(b, "%s;", t.Kind())
	}
}

// A program that was built before a change of these types would read them wrong.
func TestWireVersionChangesWithTheTypes(t *testing.T) {
	shapes := map[int]string{1: "cef48877ac21ead2", 2: "dd91437b9f597b94"} // one more for each version
	var b strings.Builder
	for _, v := range []any{initConfig{}, execConfig{}, message{}} {
		shape(&b, reflect.TypeOf(v))
	}
	got := fmt.Sprintf("%x", sha256.Sum256([]byte(b.String())))[:16]
	if want := shapes[wireVersion]; got != want {
		t.Errorf("version %d has shape %s, want %s: add a version", wireVersion, got, want)
	}
}

func TestChildOfAnotherVersion(t *testing.T) {
	for _, text := range []string{`{}`, `{"Version":999,"Config":{}}`, `{"Hostname":"h"}`} {
		if err := decodeConfig([]byte(text), &initConfig{}); err == nil || !strings.Contains(err.Error(), "different versions") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
