// Package evidence signs and reads statements about bundles: trainings, scores, gate
// verdicts, benches, releases, acceptances by main, and aborts of rollouts.
//
// Each is an in-toto statement about one bundle, in a DSSE envelope that is signed by the evidence key and attached to
// the bundle as a referrer. There is no other storage: the bundles and the public keys are enough to read all evidence.
//
//	store := evidence.New(bundles, key, trusted)
//	err := store.Sign(ctx, bundle, delivery.TrainingType, training) // does nothing if the statement exists
//	...
//	have, err := store.Load(ctx) // reads only new statements
//	training, ok := have.Trainings[runKey]
//	releases := have.ReleasesOf[bundle]
//	scores, _, err := store.Scores(ctx, bundles)
//
// A statement is valid if a trusted key signed it and it is about the bundle to which it is attached. All others are
// skipped, and listed with the reason. One function, readStatement, checks this for every statement.
//
// To replace a key, trust both keys. Statements of the old key are valid as long as it is
// trusted, and are not signed again.
//
// With a folder for it, a store keeps what it has verified, under a signature of its own: see cache. A restart then
// reads that, and looks at the files of the bundles one by one afterwards ([Store.Recheck]).
//
// A [Snapshot] contains plain values and no clock, so a plan is a pure function of it. Scores contain bootstrap
// samples, up to megabytes for each bundle, so they are read only for the bundles that a caller names.
package evidence
