// Package trust signs documents and checks who signed them.
//
// A signed document is a DSSE envelope (https://github.com/secure-systems-lab/dsse):
// JSON that holds a payload, the payload's type, and ed25519 signatures over
// both. Evidence about bundles and the fleet's desired state travel in it.
//
//	key, err := trust.Load("/etc/aob/evidence.pem")
//	envelope, err := trust.Sign(key, delivery.StatementPayload, statement)
//	...
//	payload, by, err := trust.Verify(envelope, delivery.StatementPayload, trusted)
//
// What Verify returns is the only thing to read: nothing of an envelope is
// believed before, and only type and payload are believed after. The type is
// part of what is signed, so a statement cannot be passed off as a desired
// state. The same key and payload give the same bytes.
//
// Private keys are PEM files (PKCS #8, "PRIVATE KEY") that only their owner may
// read; public keys are PEM files ("PUBLIC KEY"), several to a file where a key
// is being replaced. OpenSSL reads and writes both:
//
//	openssl genpkey -algorithm ed25519 -out evidence.pem
//	openssl pkey -in evidence.pem -pubout -out evidence.pub
//	openssl pkey -in evidence.pem -pubout -outform DER | sha256sum    # the key id
//
// To replace a key, trust the new one beside the old, sign with the new, and
// keep the old one trusted for as long as what it signed must count.
//
// Git commits are signed with an [SSHKey], as forges and git verify them by such keys.
package trust
