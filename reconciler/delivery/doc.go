// Package delivery defines the data types that the other packages share, and how they are encoded.
//
// The package imports the standard library only. It uses no clock, file, logger or
// context, so every other package may import it.
//
//   - Files of the repository: [Model], [Gate], [Fleet], and the files that AOB
//     writes, [Release] and [Quarantine]. [Intent] is one tree of them.
//   - Identity: [Digest], [Spec], and the keys in keys.go. A key is a digest of
//     content. It never depends on a commit, branch, pull request, model name or
//     version of AOB, so a result is reused for every commit with that content.
//   - Runs: [RunSpec], [RunState], [RunStatus] and the result of each kind of run.
//   - Metrics: [Metric], and [Table], which holds the bootstrap's resamples.
//   - Decisions: [Verdict], [Fact], and the signed statements in statement.go.
//   - Messages between server and devices: [Desired] and [Report].
//   - Forges: [PullRequest], [Check], [Permission].
//   - Errors that say what to do next: [Blocked] and [Wait].
package delivery
