package createopts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// readSecurityOpts checks the values of --security-opt and puts the text of a seccomp profile in place of its file.
func readSecurityOpts(values []string) ([]string, error) {
	list := slices.Clone(values)
	for i, v := range list {
		key, value, found := strings.Cut(v, "=")
		if !found && key != "no-new-privileges" {
			key, value, found = strings.Cut(v, ":")
		}
		if (!found || value == "") && key != "no-new-privileges" {
			return nil, fmt.Errorf("invalid --security-opt: %q", v)
		}
		if key != "seccomp" || value == "builtin" || value == "unconfined" {
			continue
		}
		text, err := os.ReadFile(value)
		if err != nil {
			return nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			return nil, fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
		}
		list[i] = "seccomp=" + compact.String()
	}
	return list, nil
}
