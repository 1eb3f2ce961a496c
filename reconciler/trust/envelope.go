package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// MaxEnvelope is the maximum size of an envelope: 4 MiB, which leaves about 3 MiB for
	// the payload, because of base64.
	MaxEnvelope = 4 << 20

	maxSignatures = 16
)

// ErrUnsigned is the error of an envelope that none of the trusted keys has signed.
var ErrUnsigned = errors.New("no trusted key signed it")

// Sign returns an envelope with payload, signed by key. It is compact JSON on one line.
// The same key, type and payload give the same bytes.
func Sign(key *Key, payloadType string, payload []byte) ([]byte, error) {
	if key == nil {
		return nil, errors.New("sign: no key")
	}
	if payloadType == "" {
		return nil, errors.New("sign: the payload type is empty")
	}
	signer, err := dsse.NewEnvelopeSigner(signer{key})
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	envelope, err := signer.SignPayload(context.Background(), payloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	data, err := json.Marshal(envelope)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if len(data) > MaxEnvelope {
		return nil, fmt.Errorf("sign: a payload %s of %d bytes gives an envelope of %d bytes, the maximum is %d",
			payloadType, len(payload), len(data), MaxEnvelope)
	}
	return data, nil
}

// Verify checks that an envelope has type payloadType and is signed by one of the trusted keys. It returns the payload
// and that key's id. Errors list the key ids in the envelope and the trusted ones; they never quote the payload. If a
// trusted key signed a newer format of the same payload type, the error is the Blocked of delivery.CheckNewer.
func Verify(envelope []byte, payloadType string, trusted []PublicKey) (payload []byte, keyID string, err error) {
	parsed, err := parse(envelope)
	if err != nil {
		return nil, "", fmt.Errorf("envelope: %w", err)
	}
	newer := delivery.CheckNewer("the signed document", parsed.PayloadType, payloadType)
	if parsed.PayloadType != payloadType && newer == nil {
		return nil, "", fmt.Errorf("envelope: want a payload of type %q, got %q", payloadType, parsed.PayloadType)
	}
	var verifiers []dsse.Verifier
	var trustedIDs []string
	for _, key := range trusted {
		if key.id == "" || slices.Contains(trustedIDs, key.id) {
			continue
		}
		verifiers = append(verifiers, verifier(key))
		trustedIDs = append(trustedIDs, key.id)
	}
	if len(verifiers) == 0 {
		return nil, "", errors.New("envelope: no key is trusted, so no signature is valid; configure at least one")
	}
	threshold, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return nil, "", fmt.Errorf("envelope: %w", err)
	}
	accepted, payload, err := threshold.VerifyAndDecode(context.Background(), parsed)
	if err != nil || len(accepted) == 0 {
		return nil, "", fmt.Errorf("envelope: %w: it names the keys %s; trusted are %s", ErrUnsigned,
			claimedIDs(parsed), strings.Join(trustedIDs, ", "))
	}
	if newer != nil {
		return nil, "", newer
	}
	return payload, accepted[0].KeyID, nil
}

// parse reads an envelope strictly: one JSON object of at most MaxEnvelope bytes with 1 to
// maxSignatures signatures, no unknown fields, and nothing after it.
func parse(data []byte) (*dsse.Envelope, error) {
	if len(data) > MaxEnvelope {
		return nil, fmt.Errorf("larger than %d bytes", MaxEnvelope)
	}
	var e *dsse.Envelope
	if err := delivery.ParseJSON(data, &e); err != nil {
		return nil, fmt.Errorf("not a DSSE envelope: %w", err)
	}
	if e == nil {
		return nil, errors.New("not a DSSE envelope: null")
	}
	if n := len(e.Signatures); n == 0 || n > maxSignatures {
		return nil, fmt.Errorf("want 1 to %d signatures, got %d", maxSignatures, n)
	}
	return e, nil
}

// claimedIDs lists the key ids in an envelope, quoted and cut to 64 characters: they are untrusted input.
func claimedIDs(e *dsse.Envelope) string {
	return strings.Join(delivery.Each(e.Signatures, func(s dsse.Signature) string {
		return fmt.Sprintf("%q", delivery.Cut(s.KeyID, 64))
	}), ", ")
}

// signer and verifier adapt keys to the interfaces of package dsse.
type signer struct{ key *Key }

func (s signer) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key.private, data), nil
}

func (s signer) KeyID() (string, error) { return s.key.ID(), nil }

type verifier PublicKey

func (v verifier) Verify(_ context.Context, data, sig []byte) error {
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(v.key, data, sig) {
		return errors.New("signature does not match")
	}
	return nil
}

func (v verifier) KeyID() (string, error) { return v.id, nil }

func (v verifier) Public() crypto.PublicKey { return v.key }

// Exact checks that an envelope has one signature, of the key with an id, and is written as [Sign] writes it, byte for
// byte: other spaces, key ids or spellings of base64 would be valid too.
func Exact(envelope, payload []byte, keyID string) error {
	e, err := parse(envelope)
	if err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	if len(e.Signatures) != 1 || e.Signatures[0].KeyID != keyID {
		return fmt.Errorf("envelope: want one signature, of the key %s", keyID)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return fmt.Errorf("envelope: the signature: %w", err)
	}
	e.Payload, e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(payload), base64.StdEncoding.EncodeToString(sig)
	written, err := json.Marshal(e)
	if err == nil && !bytes.Equal(written, envelope) {
		err = errors.New("envelope: it is not written as AOB writes it")
	}
	return err
}
