package network

import (
	"os/user"
	"strconv"
	"testing"
)

// testUser is the ordinary user that scripts/setup-debian.sh makes.
func testUser(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("lamina-test")
	if err != nil {
		t.Skipf("needs an ordinary user: %v", err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}
