package detect

import (
	"context"
	"errors"
	"regexp"
)

// providerPattern is what a child may say that it computes with.
var providerPattern = regexp.MustCompile(`^[a-z]{1,20}(/[0-9a-f]{6,64})?$`)

// Provider returns what computes with the detector's profile, as it is part of the key of every detection result. It
// fails if this machine lacks what the profile needs, such as a GPU, or a provider of ONNX Runtime.
func (d Detector) Provider(ctx context.Context) (string, error) {
	if d.Profile == "" {
		return Provider, nil
	}
	var provider string
	err := d.request(ctx, "provider", nil, nil, func(m message) error {
		if m.Provider == nil || !providerPattern.MatchString(*m.Provider) {
			return errors.New("unexpected message")
		}
		provider = *m.Provider
		return nil
	})
	return provider, err
}
