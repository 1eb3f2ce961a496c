package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// An SSHKey is a private key that signs git commits. Its String is its fingerprint, never the secret.
type SSHKey struct{ signer ssh.Signer }

// Public returns the public key as one line of an authorized_keys file, without a comment.
func (k *SSHKey) Public() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.signer.PublicKey())))
}

func (k *SSHKey) String() string { return "SSH key " + ssh.FingerprintSHA256(k.signer.PublicKey()) }

// GoString keeps the secret out of %#v.
func (k *SSHKey) GoString() string { return k.String() }

const makeSSHKey = "make one with: ssh-keygen -t ed25519 -N '' -f FILE"

// LoadSSH reads an SSH private key in the format of ssh-keygen or in PKCS #8. It must be an ed25519 key, whose
// signatures are deterministic, without a passphrase, and only its owner may have access to the file.
func LoadSSH(path string) (*SSHKey, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	if k, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		return nil, fmt.Errorf("private key %s: it is a public key (%s); name the file of the private one", path,
			k.Type())
	}
	raw, err := ssh.ParseRawPrivateKey(data)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		return nil, fmt.Errorf("private key %s: it has a passphrase, which a server cannot enter; %s", path, makeSSHKey)
	}
	var private ed25519.PrivateKey
	kind := ""
	switch key := raw.(type) {
	case *ed25519.PrivateKey:
		private = *key
	case ed25519.PrivateKey:
		private = key
	case *rsa.PrivateKey:
		kind = "an RSA key"
	case *ecdsa.PrivateKey:
		kind = "an ECDSA key"
	}
	switch {
	case kind != "":
		return nil, fmt.Errorf("private key %s: want an ed25519 key, found %s; %s", path, kind, makeSSHKey)
	case err != nil || private == nil: // the library's error may quote the file
		return nil, fmt.Errorf("private key %s: not an SSH private key of type ed25519; %s", path, makeSSHKey)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	return &SSHKey{signer}, nil
}

// Sign returns an OpenSSH signature (PROTOCOL.sshsig) of a message, as git uses it with gpg.format=ssh. The signature
// is valid only for the given namespace, which is "git" for commits. The same message gives the same bytes.
func (k *SSHKey) Sign(namespace string, message []byte) ([]byte, error) {
	signature, err := k.signer.Sign(rand.Reader, sshMessage(namespace, message)) // ed25519 does not use rand
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k, err)
	}
	blob := append([]byte(sshMagic), ssh.Marshal(sshBlob{1, string(k.signer.PublicKey().Marshal()), namespace, "",
		sshHash, string(ssh.Marshal(signature))})...)
	return bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: sshType, Bytes: blob})), nil
}

// SSHSigned reports whether an OpenSSH signature is valid for a message, a namespace, and a public key, which is one
// line of an authorized_keys file.
func SSHSigned(public, namespace string, message, signature []byte) bool {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	block, _ := pem.Decode(signature)
	if err != nil || block == nil || block.Type != sshType {
		return false
	}
	rest, ok := bytes.CutPrefix(block.Bytes, []byte(sshMagic))
	var blob sshBlob
	if !ok || ssh.Unmarshal(rest, &blob) != nil || blob.Namespace != namespace || blob.Hash != sshHash ||
		blob.Public != string(key.Marshal()) {
		return false
	}
	var made ssh.Signature
	if ssh.Unmarshal([]byte(blob.Signature), &made) != nil {
		return false
	}
	return key.Verify(sshMessage(namespace, message), &made) == nil
}

// Constants of PROTOCOL.sshsig.
const (
	sshMagic = "SSHSIG"
	sshHash  = "sha512"
	sshType  = "SSH SIGNATURE"
)

type sshBlob struct {
	Version                                      uint32
	Public, Namespace, Reserved, Hash, Signature string
}

// sshMessage returns the bytes that are signed for a message.
func sshMessage(namespace string, message []byte) []byte {
	sum := sha512.Sum512(message)
	fields := struct{ Namespace, Reserved, Hash, Sum string }{namespace, "", sshHash, string(sum[:])}
	return append([]byte(sshMagic), ssh.Marshal(fields)...)
}
