package image

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"strings"
)

// randomHex returns n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// newCacheID names a layer's folder: 64 hexadecimal digits.
func newCacheID() string { return randomHex(32) }

// How newLink spells its random bytes.
const linkBytes = 16

var linkEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newLink names a layer in layers/l: 26 characters, so that many fit an option string.
func newLink() string {
	b := make([]byte, linkBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return linkEncoding.EncodeToString(b)
}

// validLink reports whether link is one of newLink's.
func validLink(link string) bool {
	return len(link) == linkEncoding.EncodedLen(linkBytes) &&
		strings.Trim(link, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// validContainerID reports whether id can name a file.
func validContainerID(id string) bool {
	if id == "" || len(id) > 128 || id[0] == '.' {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	}) < 0
}
