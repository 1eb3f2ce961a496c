package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/trust"
)

func create(t testing.TB) *trust.Key {
	t.Helper()
	key, err := trust.Create(filepath.Join(t.TempDir(), "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestCreateThenLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	made, err := trust.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	loaded, err := trust.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.ID() != made.ID() || len(made.ID()) != 64 {
		t.Errorf("created %s, loaded %s", made.ID(), loaded.ID())
	}
	if _, err := trust.Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a key: %v, want fs.ErrExist", err)
	}
	if again, err := trust.Load(path); err != nil || again.ID() != made.ID() {
		t.Errorf("the refused creation changed the key: %v, %v", again, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files in the folder: %v, %v", entries, err)
	}
}

func TestStringHidesTheSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	key, err := trust.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, key); got != "key "+key.ID() {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.pem")
	if _, err := trust.Create(good); err != nil {
		t.Fatal(err)
	}
	goodPEM, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherDER, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	otherPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: otherDER})
	for _, c := range []struct {
		name string
		data []byte
		mode fs.FileMode
		want string
	}{
		{"readable by the group", goodPEM, 0o640, "chmod 600"},
		{"readable by the world", goodPEM, 0o604, "chmod 600"},
		{"empty", nil, 0o600, "no PEM block"},
		{"not PEM", []byte("hunter2"), 0o600, "no PEM block"},
		{"cut off", goodPEM[:len(goodPEM)-20], 0o600, "no PEM block"},
		{"two keys", append(append([]byte{}, goodPEM...), goodPEM...), 0o600, "found 2"},
		{"a second key cut off", append(append([]byte{}, goodPEM...), goodPEM[:60]...), 0o600, "cut off"},
		{"a public key", create(t).Public().PEM(), 0o600, `found "PUBLIC KEY"`},
		{"another algorithm", otherPEM, 0o600, "want an ed25519 key"},
		{"not PKCS #8", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hunter2")}), 0o600,
			"PKCS #8"},
		{"too large", []byte(strings.Repeat("x", 1<<20)), 0o600, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := trust.Load(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error with %q and the path", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
	if _, err := trust.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key: %v, want fs.ErrNotExist", err)
	}
	if _, err := trust.Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "want a file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestPublicKeys(t *testing.T) {
	a, b := create(t).Public(), create(t).Public()
	path := filepath.Join(t.TempDir(), "trusted.pem")
	text := "# the old one\n" + string(a.PEM()) + "\n# the new one\n" + string(b.PEM()) + string(a.PEM())
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	keys, err := trust.LoadPublic(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || keys[0].ID() != a.ID() || keys[1].ID() != b.ID() {
		t.Errorf("got %v, want %v and %v", keys, a, b)
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "no PEM block"},
		{"damaged", strings.Replace(text, "MCow", "AAAA", 1), "not a public key"},
		{"a private key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", `found "PRIVATE KEY"`},
	} {
		if _, err := trust.ParsePublic([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// The wanted id was computed with OpenSSL as the package comment describes. The key is the
// public key of RFC 8032's first test vector.
func TestKeyIDIsTheDigestOfTheDER(t *testing.T) {
	const text = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
`
	keys, err := trust.ParsePublic([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	const want = "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9"
	if got := keys[0].ID(); got != want {
		t.Errorf("id %s, want %s", got, want)
	}
	if string(keys[0].PEM()) != text {
		t.Errorf("PEM returns %s", keys[0].PEM())
	}
}
