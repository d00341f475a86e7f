package layout

import (
	"crypto/sha256"
	"encoding/hex"
)

// KeySum returns the name in [UniqueDir] of a unique key.
func KeySum(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// IsKeySum reports whether text can be the name of a unique key. Text of a header that is
// not must never become part of a path.
func IsKeySum(text string) bool {
	if len(text) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
