// Package evidence keeps what AOB has signed about bundles: how each was
// trained, what it scored, what gates said of it, that it was released,
// accepted, or aborted on a fleet.
//
// Each is an in-toto statement about one bundle, in an envelope signed by the
// evidence key, attached to the bundle as a referrer. Nothing else is kept: with
// the bundles and the public keys alone, all of it is there again.
//
//	store := evidence.New(bundles, key, trusted)
//	err := store.SignTraining(ctx, training)    // saying the same again does nothing
//	...
//	have, err := store.Load(ctx)                // reads only what is new
//	training, ok := have.Trainings[runKey]
//	releases := have.Releases(spec, bundle)
//	scores, _, err := store.Scores(ctx, bundles)
//
// A statement counts where a trusted key signed it and it is about the bundle
// that it hangs on. All others are skipped, and listed with the reason. That is
// checked in one function, for every statement, whoever asks.
//
// Keys are replaced by trusting the new one beside the old. What the old one
// signed counts for as long as it is trusted, and is not signed again.
//
// A [Snapshot] holds plain values and no clock, so that a plan made of it is a
// function of it. Scores hold bootstrap samples, up to megabytes each, and are
// read for the bundles in question rather than all at once.
package evidence
