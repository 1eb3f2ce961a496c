package delivery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// A Digest names content: "sha256:" and 64 lower-case hex digits.
// The zero value names nothing.
type Digest string

// Sum returns the digest of data.
func Sum(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// ParseDigest checks that s is a digest in the one form that AOB writes.
func ParseDigest(s string) (Digest, error) {
	hexa, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hexa) != 64 || strings.Trim(hexa, "0123456789abcdef") != "" {
		return "", fmt.Errorf("want a digest, sha256: and 64 lower-case hex digits, got %q", s)
	}
	return Digest(s), nil
}

// Hex returns the digits without the algorithm's name.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short returns the first 12 digits, for people.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(12, len(h))]
}

// Canonical returns the one JSON form of v that digests are taken of: object
// keys sorted, no white space, no HTML escapes. It panics where v cannot be
// JSON (a channel, a NaN), which is a mistake in the calling code.
func Canonical(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("delivery: %T has no JSON form: %v", v, err))
	}
	// Structs encode in field order. Decoding into maps and encoding again sorts
	// all keys, so that the order of fields in Go can change and no key does.
	dec := json.NewDecoder(&b)
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		panic(fmt.Sprintf("delivery: %T does not decode: %v", v, err))
	}
	var out bytes.Buffer
	enc = json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(plain); err != nil {
		panic(fmt.Sprintf("delivery: %T does not encode: %v", v, err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// DigestOf returns the digest of v's canonical form under a kind, so that two
// values of different kinds with the same fields never share a key.
func DigestOf(kind string, v any) Digest {
	return Sum(Canonical(map[string]any{kind: v}))
}
