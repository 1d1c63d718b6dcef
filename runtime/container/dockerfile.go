package container

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The words of a Dockerfile's instructions are not a shell's: nothing but quotes, the backslash and variables has a meaning.
//
// Source: buildkit frontend/dockerfile/parser, parseWords, which it does not export, and frontend/dockerfile/shell, Lex.

// splitWords splits at white space that is neither quoted nor behind a backslash. The words keep their quotes.
func splitWords(s string) []string {
	var words []string
	begin, quote := -1, rune(0)
	escaped := false
	for i, r := range s {
		switch {
		case escaped:
			escaped = false
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case unicode.IsSpace(r):
			if begin >= 0 {
				words, begin = append(words, s[begin:i]), -1
			}
			continue
		case r == '\'' || r == '"':
			quote = r
		}
		if begin < 0 {
			begin = i
		}
	}
	if begin >= 0 {
		words = append(words, s[begin:])
	}
	return words
}

// expander takes quotes off a word, and puts in what variables stand for.
type expander struct {
	env  []string // "NAME=VALUE"; the last one of a name counts
	rest string
	out  strings.Builder
}

// expandWord expands one word.
//
// Errors: a quote or a brace without its end, what stands in braces and is no variable, ${NAME:?text} without that variable.
func expandWord(word string, env []string) (string, error) {
	e := &expander{env: env, rest: word}
	if err := e.until(""); err != nil {
		return "", err
	}
	return e.out.String(), nil
}

// expandWords expands what may be several words.
func expandWords(s string, env []string) ([]string, error) {
	var words []string
	for _, w := range splitWords(s) {
		w, err := expandWord(w, env)
		if err != nil {
			return nil, err
		}
		words = append(words, w)
	}
	return words, nil
}

// next takes one character off, 0 at the end.
func (e *expander) next() rune {
	if e.rest == "" {
		return 0
	}
	r, n := utf8.DecodeRuneInString(e.rest)
	e.rest = e.rest[n:]
	if r == utf8.RuneError && n == 1 {
		return -1 // no UTF-8: nothing that means anything
	}
	return r
}

// until expands what stands before one of the characters of end, and takes that off; of "" all there is.
func (e *expander) until(end string) error {
	for e.rest != "" {
		before := e.rest
		switch r := e.next(); {
		case r > 0 && strings.ContainsRune(end, r):
			return nil
		case r == '\'':
			text, rest, ok := strings.Cut(e.rest, "'")
			if !ok {
				return errors.New("unexpected end of statement while looking for matching single-quote")
			}
			e.out.WriteString(text)
			e.rest = rest
		case r == '"':
			if err := e.quoted(); err != nil {
				return err
			}
		case r == '$':
			if err := e.variable(); err != nil {
				return err
			}
		case r == '\\':
			before = e.rest
			e.next()
			fallthrough
		default:
			e.out.WriteString(before[:len(before)-len(e.rest)])
		}
	}
	if end != "" {
		return fmt.Errorf("unexpected end of statement while looking for %q", end)
	}
	return nil
}

// quoted expands what stands in double quotes, behind the first: there the backslash means itself, but before what it
// takes the meaning from.
func (e *expander) quoted() error {
	for e.rest != "" {
		before := e.rest
		switch r := e.next(); {
		case r == '"':
			return nil
		case r == '$':
			if err := e.variable(); err != nil {
				return err
			}
			continue
		case r == '\\' && e.rest != "" && strings.ContainsRune(`"$\`, rune(e.rest[0])):
			before = e.rest
			e.next()
		}
		e.out.WriteString(before[:len(before)-len(e.rest)])
	}
	return errors.New("unexpected end of statement while looking for matching double-quote")
}

// variable puts in what $NAME or ${NAME...} stands for, behind the $. One that is not set is empty.
func (e *expander) variable() error {
	if !strings.HasPrefix(e.rest, "{") {
		if name := e.name(); name != "" {
			value, _ := e.lookUp(name)
			e.out.WriteString(value)
		} else {
			e.out.WriteByte('$')
		}
		return nil
	}
	e.next()
	name := e.name()
	op := e.next()
	if name == "" {
		return errors.New("bad substitution")
	}
	value, set := e.lookUp(name)
	if op == '}' {
		e.out.WriteString(value)
		return nil
	}
	if op == ':' { // empty counts as not set
		set = set && value != ""
		op = e.next()
	}
	word := expander{env: e.env, rest: e.rest}
	if err := word.until("}"); err != nil {
		return err
	}
	e.rest = word.rest
	switch {
	case op == '-' && !set, op == '+' && set:
		value = word.out.String()
	case op == '-':
	case op == '+':
		value = ""
	case op == '?' && !set:
		return fmt.Errorf("%s: %s", name, word.out.String())
	case op == '?':
	default:
		return fmt.Errorf("unsupported modifier (%c) in substitution", op)
	}
	e.out.WriteString(value)
	return nil
}

// name takes the name of a variable off, "" where there is none. Those of a shell's own are names too, of what is not set.
func (e *expander) name() string {
	n := 0
	for i, r := range e.rest {
		if i == 0 && strings.ContainsRune("@*#?-$!", r) {
			n = 1
			break
		}
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) || i > 0 && unicode.IsDigit(rune(e.rest[0])) && !unicode.IsDigit(r) {
			break
		}
		n = i + utf8.RuneLen(r)
	}
	name := e.rest[:n]
	e.rest = e.rest[n:]
	return name
}

func (e *expander) lookUp(name string) (value string, set bool) {
	for _, kv := range e.env {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value, set = v, true
		}
	}
	return value, set
}
