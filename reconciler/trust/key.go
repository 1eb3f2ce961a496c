package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/autonomos/aob/reconciler/durable"
)

// maxKeyFile is the maximum size of a key file in bytes. A key has about 120 bytes.
const maxKeyFile = 64 << 10

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// A Key is a private key. Its String is its id, never the secret.
type Key struct {
	private ed25519.PrivateKey
	public  PublicKey
}

// Public returns the key that verifies what k signs.
func (k *Key) Public() PublicKey { return k.public }

// ID returns the key's id, the same as its public key's.
func (k *Key) ID() string { return k.public.id }

func (k *Key) String() string { return "key " + k.public.id }

// GoString keeps the secret out of %#v.
func (k *Key) GoString() string { return k.String() }

// A PublicKey verifies signatures. The zero value accepts none.
type PublicKey struct {
	key ed25519.PublicKey
	der []byte // SubjectPublicKeyInfo
	id  string
}

// ID returns the key's id: the SHA-256 of its SubjectPublicKeyInfo in DER, as 64 hex digits.
func (p PublicKey) ID() string { return p.id }

func (p PublicKey) String() string { return "public key " + p.id }

// PEM returns the key as a "PUBLIC KEY" block.
func (p PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: p.der})
}

// Create generates a key and writes it to path with mode 0600. It never overwrites a file: if path exists, the error is
// fs.ErrExist. When it returns nil, the key survives a power cut.
func Create(path string) (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := writeNew(path, pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der})); err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	return newKey(private), nil
}

// writeNew writes a file that must not exist, with a temporary file and link(2). Unlike rename, link never replaces a
// file that another process has just created. Unlike O_EXCL, it never makes a half-written file visible.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// Load reads a private key. The file must contain exactly one ed25519 key in PKCS #8, and
// only its owner may have access to it.
func Load(path string) (*Key, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	blocks, err := decodePEM(data, privateBlock)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("private key %s: want one key, found %d", path, len(blocks))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("private key %s: not a PKCS #8 key; make one with: openssl genpkey -algorithm ed25519",
			path)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key %s: want an ed25519 key, found %T", path, parsed)
	}
	return newKey(private), nil
}

// readSecret reads the file of a private key. The error says so if group or others may access it.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	switch extra := info.Mode().Perm() &^ 0o700; {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("private key %s: want a file, found %s", path, info.Mode().Type())
	case extra != 0:
		return nil, fmt.Errorf("private key %s: other users have access to it (mode %04o); run chmod 600 on "+
			"it, and replace the key if somebody has copied it", path, info.Mode().Perm())
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("private key %s: larger than %d bytes, so not a key", path, maxKeyFile)
	}
	data, err := durable.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	return data, nil
}

// LoadPublic reads one or more public keys from a PEM file.
func LoadPublic(path string) ([]PublicKey, error) {
	data, err := durable.ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read public key %s: %w", path, err)
	}
	keys, err := ParsePublic(data)
	if err != nil {
		return nil, fmt.Errorf("public key %s: %w", path, err)
	}
	return keys, nil
}

// ParsePublic reads one or more "PUBLIC KEY" blocks. Duplicates are removed. Text outside
// the blocks, such as comments, is ignored.
func ParsePublic(data []byte) ([]PublicKey, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("want at most %d bytes, got %d", maxKeyFile, len(data))
	}
	blocks, err := decodePEM(data, publicBlock)
	if err != nil {
		return nil, err
	}
	var keys []PublicKey
	for i, der := range blocks {
		parsed, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, fmt.Errorf("key %d: not a public key: %w", i+1, err)
		}
		public, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("key %d: want an ed25519 key, found %T", i+1, parsed)
		}
		key := newPublic(public)
		if !slices.ContainsFunc(keys, func(k PublicKey) bool { return k.id == key.id }) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func newKey(private ed25519.PrivateKey) *Key {
	return &Key{private, newPublic(private.Public().(ed25519.PublicKey))}
}

func newPublic(key ed25519.PublicKey) PublicKey {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // every ed25519 key can be encoded
	}
	sum := sha256.Sum256(der)
	return PublicKey{key, der, hex.EncodeToString(sum[:])}
}

// decodePEM returns the content of all PEM blocks of data. There must be at least one, and all must have type want. The
// error never quotes the data, which may be a secret in the wrong file.
func decodePEM(data []byte, want string) ([][]byte, error) {
	var all [][]byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != want {
			return nil, fmt.Errorf("want a PEM block %q, found %q", want, block.Type)
		}
		all = append(all, block.Bytes)
		data = rest
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no PEM block %q in it", want)
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return nil, errors.New("its last PEM block is cut off or damaged")
	}
	return all, nil
}
