package forge

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/autonomos/aob/reconciler/delivery"
)

// explained says in an error, unless it is nil, what was being done. Where possible it makes a delivery.Blocked with a
// hint of it, or a delivery.Wait. url is the server's, name the repository's, and special says what a response of this
// kind of forge means; empty for nothing special.
func explained(err error, doing, url, name string, special func(*statusError) (what, do string)) error {
	if err == nil {
		return nil
	}
	if wait, ok := errors.AsType[delivery.Wait](err); ok {
		return wait
	}
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = doing + ": " + b.What
		return b
	}
	s, ok := errors.AsType[*statusError](err)
	if !ok {
		return fmt.Errorf("%s in %s: %w", doing, name, err)
	}
	what, do := special(s)
	switch {
	case s.limited:
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s limits requests (%s)", doing, url, s)}
	case s.code == http.StatusUnauthorized:
		return delivery.Blockedf("check the token: it may have expired", "%s: %s rejects the token (%s)", doing, url, s)
	case what != "":
		return delivery.Blockedf(do, "%s: %s", doing, what)
	case s.code == http.StatusForbidden:
		return delivery.Blockedf("give the token's user write permission in the repository",
			"%s: %s denies access to %s (%s)", doing, url, name, s)
	case s.code == http.StatusNotFound || s.code == http.StatusGone:
		return delivery.Blockedf("check owner and name, and that the token's user may see it",
			"%s: %s finds no such thing in %s (%s)", doing, url, name, s)
	case s.code >= 500:
		return delivery.Wait{For: s.after, What: fmt.Sprintf("%s: %s has a server error (%s)", doing, url, s)}
	}
	return fmt.Errorf("%s in %s: %s", doing, name, s)
}
