// Package jsontext finds what JSON cannot hold, before encoding/json puts something else in its place.
package jsontext

import (
	"fmt"
	"reflect"
	"unicode/utf8"
)

// Check looks for a string that is not UTF-8 in values that are to become JSON (RFC 8259, section 8.1), in fields, elements,
// keys and values of any depth. encoding/json replaces each wrong byte by U+FFFD and says nothing: a path, an argument or the
// value of a variable would be another one.
//
// Preconditions: no pointer leads back to where it is from.
func Check(vs ...any) error {
	for _, v := range vs {
		if s, bad := notText(reflect.ValueOf(v)); bad {
			return fmt.Errorf("%q is not valid UTF-8", s)
		}
	}
	return nil
}

// notText finds a string in v that is not UTF-8.
func notText(v reflect.Value) (string, bool) {
	switch v.Kind() {
	case reflect.String:
		return v.String(), !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return notText(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if s, ok := notText(v.Field(i)); ok {
				return s, true
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if s, ok := notText(v.Index(i)); ok {
				return s, true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if s, ok := notText(it.Key()); ok {
				return s, true
			}
			if s, ok := notText(it.Value()); ok {
				return s, true
			}
		}
	}
	return "", false
}
