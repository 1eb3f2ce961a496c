// Package delivery holds AOB's nouns: what people ask for, what runs, what was
// measured, what was decided, and the documents that cross a wire or a disk.
//
// Everything here is plain data with an encoding. The package imports the
// standard library only, and knows no clock, file, logger or context, so every
// other package may import it and nothing can go wrong in it but a wrong value.
//
//   - intent: [Model], [Gate], [Fleet], and what AOB writes beside them,
//     [Release] and [Quarantine]; [Intent] is one whole tree of them.
//   - identity: [Digest], [Spec], and the keys in keys.go. A key is made of
//     content: never of a commit, branch, pull request, model name or version
//     of AOB, so a result counts for every commit with its content.
//   - slow work: [RunSpec], [RunState], [RunStatus] and the result of each kind.
//   - decisions: [Verdict], and the signed statements in statement.go.
//   - the fleet's wire: [Desired] and [Report].
//   - the forge's words: [PullRequest], [Check], [Permission].
//   - errors that say what to do next: [Blocked] and [Wait].
package delivery
