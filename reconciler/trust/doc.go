// Package trust signs documents and verifies their signatures.
//
// A signed document is a DSSE envelope (https://github.com/secure-systems-lab/dsse):
// JSON with a payload, the payload's type, and ed25519 signatures over both. Evidence
// about bundles and the desired state of fleets are stored and sent in envelopes.
//
//	key, err := trust.Load("/etc/aob/evidence.pem")
//	envelope, err := trust.Sign(key, delivery.StatementPayload, statement)
//	...
//	payload, by, err := trust.Verify(envelope, delivery.StatementPayload, trusted)
//
// Use only the payload that Verify returns, and nothing else of an envelope. The type is signed too, so a statement
// cannot be used as a desired state. The same key, type and payload give the same bytes.
//
// Private keys are PEM files (PKCS #8, "PRIVATE KEY") that only their owner may read; public keys are PEM files
// ("PUBLIC KEY"), several to a file where a key is being replaced. OpenSSL reads and writes both:
//
//	openssl genpkey -algorithm ed25519 -out evidence.pem
//	openssl pkey -in evidence.pem -pubout -out evidence.pub
//	openssl pkey -in evidence.pem -pubout -outform DER | sha256sum    # the key id
//
// To replace a key, trust both keys, sign with the new one, and keep trusting the old one
// as long as its signatures must be valid.
//
// Git commits are signed with an [SSHKey], because git and forges verify SSH signatures.
package trust
