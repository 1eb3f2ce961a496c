package trust_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/trust"
)

// sshKeygen generates a key with ssh-keygen and returns its path.
func sshKeygen(t *testing.T, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id")
	run(t, nil, "ssh-keygen", append([]string{"-q", "-C", "", "-f", path}, args...)...)
	return path
}

func run(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("no %s on PATH", name)
	}
	c := exec.Command(name, args...)
	c.Stdin = bytes.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestOpenSSHVerifiesSignatures(t *testing.T) {
	path := sshKeygen(t, "-t", "ed25519", "-N", "")
	key, err := trust.LoadSSH(path)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(path + ".pub")
	if err != nil || strings.TrimSpace(string(public)) != key.Public() {
		t.Errorf("the public key is %q, and ssh-keygen wrote %q (%v)", key.Public(), public, err)
	}
	message := []byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nRelease\n")
	signature, err := key.Sign("git", message)
	if err != nil {
		t.Fatal(err)
	}
	again, err := key.Sign("git", message)
	if err != nil || !bytes.Equal(again, signature) {
		t.Errorf("signing the same message again gives different bytes: %v", err)
	}
	dir := t.TempDir()
	signed, allowed := filepath.Join(dir, "sig"), filepath.Join(dir, "allowed")
	if err := os.WriteFile(signed, signature, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(allowed, []byte("aob@example.com "+key.Public()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := trust.LoadSSH(sshKeygen(t, "-t", "ed25519", "-N", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !trust.SSHSigned(key.Public(), "git", message, signature) {
		t.Error("the signature is not valid")
	}
	for name, wrong := range map[string]bool{
		"another key":       trust.SSHSigned(other.Public(), "git", message, signature),
		"another message":   trust.SSHSigned(key.Public(), "git", message[1:], signature),
		"another namespace": trust.SSHSigned(key.Public(), "file", message, signature),
		"half a signature":  trust.SSHSigned(key.Public(), "git", message, signature[:len(signature)/2]),
		"no signature":      trust.SSHSigned(key.Public(), "git", message, nil),
		"no key":            trust.SSHSigned("", "git", message, signature),
	} {
		if wrong {
			t.Errorf("%s is accepted", name)
		}
	}
	run(t, message, "ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "aob@example.com", "-n", "git", "-s", signed)
	for name, args := range map[string][]string{
		"another message":   {"-n", "git"},
		"another namespace": {"-n", "file"},
	} {
		input := message
		if name == "another message" {
			input = append(input, '!')
		}
		c := exec.Command("ssh-keygen", append([]string{"-Y", "verify", "-f", allowed, "-I", "aob@example.com", "-s",
			signed}, args...)...)
		c.Stdin = bytes.NewReader(input)
		if out, err := c.CombinedOutput(); err == nil {
			t.Errorf("ssh-keygen accepts %s: %s", name, out)
		}
	}
}

func TestLoadSSHFormats(t *testing.T) {
	pkcs8 := filepath.Join(t.TempDir(), "pkcs8")
	run(t, nil, "openssl", "genpkey", "-algorithm", "ed25519", "-out", pkcs8)
	if err := os.Chmod(pkcs8, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"OpenSSH": sshKeygen(t, "-t", "ed25519", "-N", ""), "PKCS #8": pkcs8} {
		key, err := trust.LoadSSH(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := fmt.Sprintf("%v %+v %#v", key, key, key); strings.Count(got, "SSH key SHA256:") != 3 ||
			len(got) > 250 {
			t.Errorf("%s: formatted as %s", name, got)
		}
	}
}

// The error says what is wrong with a key and does not quote the file.
func TestLoadSSHRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	open := sshKeygen(t, "-t", "ed25519", "-N", "")
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hunter2hunter2hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(t.TempDir(), "half")
	whole, err := os.ReadFile(sshKeygen(t, "-t", "ed25519", "-N", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	public := sshKeygen(t, "-t", "ed25519", "-N", "") + ".pub"
	if err := os.Chmod(public, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"others may read it": {open, "other users have access to it (mode 0640); run chmod 600"},
		"a passphrase":       {sshKeygen(t, "-t", "ed25519", "-N", "hunter2hunter2"), "it has a passphrase"},
		"RSA": {sshKeygen(t, "-t", "rsa", "-b", "2048", "-N", ""),
			"want an ed25519 key, found an RSA key"},
		"RSA in PEM": {sshKeygen(t, "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""),
			"want an ed25519 key, found an RSA key"},
		"ECDSA":               {sshKeygen(t, "-t", "ecdsa", "-N", ""), "want an ed25519 key, found an ECDSA key"},
		"the public half":     {public, "it is a public key (ssh-ed25519)"},
		"not a key":           {text, "not an SSH private key"},
		"half a key":          {half, "not an SSH private key"},
		"a folder":            {t.TempDir(), "want a file, found d"},
		"a file that is gone": {filepath.Join(t.TempDir(), "gone"), "no such file"},
	} {
		key, err := trust.LoadSSH(c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want %q", name, key, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}
