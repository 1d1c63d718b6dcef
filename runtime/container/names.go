package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"sync"
)

// The words of names for containers that were given none.
const (
	adjectives = `admiring agile amused brave bright calm clever cool curious dazzling eager earnest
		elegant epic fervent festive focused friendly gallant gentle gifted happy hopeful humble inspiring jolly keen
		kind lucid merry modest mystic nifty noble nostalgic patient peaceful pensive quirky relaxed serene sharp silent
		stoic sweet tender thoughtful trusting upbeat vibrant vigilant warm wise witty wonderful zealous zen`
	surnames = `abel archimedes banach bell bohr boyd cantor cauchy chandrasekhar curie darwin dijkstra
		einstein elion euclid euler faraday fermat fermi feynman franklin galileo galois gauss germain goodall hamilton
		hawking hertz hilbert hodgkin hopper hypatia jackson joliot kepler khorana kilby knuth kovalevskaya lagrange
		lamarr leavitt liskov lovelace lumiere mayer mccarthy meitner mendel mirzakhani newton nobel noether pascal
		pasteur perlman planck ptolemy ramanujan ride ritchie sammet shannon swirles tesla thompson torvalds turing
		volta wescoff wiles wilson wozniak wright yalow`
)

// nameLetters is what Docker allows in names (daemon/names).
var nameLetters = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`) })

func checkName(name string) error {
	if !nameLetters().MatchString(name) {
		return fail(ErrInvalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// shortLength is how many digits of an ID are shown, as under Docker.
const shortLength = 12

// newID is 32 random bytes in hexadecimal. Its beginning is the container's hostname, so it is no number, which would be taken for an
// address (inet_aton(3)). Source: moby daemon/internal/stringid, GenerateRandomID.
func newID() string {
	for {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:shortLength], "abcdef") {
			return id
		}
	}
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		return words[0] // never: crypto/rand.Reader does not fail
	}
	return words[n.Int64()]
}

// freeName finds a name that is not taken.
func freeName(taken map[string]string) string {
	for i := 0; ; i++ {
		name := pick(strings.Fields(adjectives)) + "_" + pick(strings.Fields(surnames))
		if i > 3 {
			name = fmt.Sprintf("%s%d", name, i)
		}
		if _, ok := taken[name]; !ok {
			return name
		}
	}
}

// takenLocked returns the IDs by name of all containers, those in the making included. Preconditions: the lock on
// names is held.
func (s *Store) takenLocked() (map[string]string, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	taken := map[string]string{}
	for _, id := range ids {
		for _, file := range []string{configFile, creatingFile} {
			var r struct{ Name string }
			err := readJSON(s.dir()+"/"+id, file, &r)
			if err != nil && !missing(err) {
				if err := s.tell(err); err != nil {
					return nil, err
				}
			}
			if r.Name != "" {
				taken[r.Name] = id
			}
		}
	}
	return taken, nil
}

func inUse(name, id string) error {
	return fail(ErrConflict, "Conflict. The container name %q is already in use by container %q. You have to remove "+
		"(or rename) that container to be able to reuse that name.", "/"+name, id)
}
