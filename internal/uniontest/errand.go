package uniontest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// An errand is a part of a test that is run as somebody else: by the same test binary, in which TestErrand takes it from
// the environment.
const errandEnv = "LAMINA_ERRAND"

// errandDone is what an errand prints at its end: tests that are all skipped look like success otherwise.
const errandDone = "the errand was run"

// SendErrand has h run TestErrand of the calling test's package, with value, further environment and flags. The test
// fails where it does, or where it has not said that it was ErrandDone.
func SendErrand(t testing.TB, h *Helper, value any, env []string, flags ...string) {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.Exec(Command{
		Argv: append([]string{"/proc/self/exe", "-test.run=^TestErrand$"}, flags...),
		Env:  append(slices.Clone(env), errandEnv+"="+string(raw)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 0 || !strings.Contains(r.Stdout, errandDone) {
		t.Errorf("as %s: status %d\n%s%s", h.who, r.Code, r.Stdout, r.Stderr)
	}
}

// TakeErrand puts what was sent into value. In a process that nobody has sent on an errand the test is skipped.
func TakeErrand(t testing.TB, value any) {
	t.Helper()
	raw := os.Getenv(errandEnv)
	if raw == "" {
		t.Skip("run by other tests")
	}
	if err := json.Unmarshal([]byte(raw), value); err != nil {
		t.Fatal(err)
	}
}

// ErrandDone tells the sender that the errand was run, and not only begun. Elsewhere it says nothing.
func ErrandDone() {
	if OnErrand() {
		fmt.Println(errandDone)
	}
}

// OnErrand tells whether this process was sent on an errand.
func OnErrand() bool { return os.Getenv(errandEnv) != "" }
