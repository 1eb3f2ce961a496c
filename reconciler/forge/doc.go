// Package forge connects to Git forges.
//
// [Gitea] is a repository on a Gitea or Forgejo server, [GitHub] one on GitHub, and [GitLab] a project on GitLab.
// [Local] is a bare repository on this machine, where every branch but main is a proposal. All have the same methods:
//
//	Address()                               names the forge and the repository
//	PullRequests(ctx)                       the open ones, sorted by number
//	SetStatus(ctx, commit, check)           one status check on a commit
//	Statuses(ctx, commit)                   the newest of each context under aob/, and who set it
//	Comment(ctx, pr, marker, body)          one comment of AOB's own, edited in place
//	CommentBody(ctx, pr, marker)            that comment as it is now
//	Commands(ctx, pr)                       the commands to AOB in comments
//	Ask(ctx, pr, question)                  posts a question, and returns who has agreed to it
//	Check(ctx)                              the problems of the forge's settings
//	Permission(ctx, user)                   a user's permission on the repository
//	Teams(ctx, user)                        the teams of the repository, and whether a user is in each
//	OpenPR(ctx, head, base, title, body)    a pull request for a branch, opened once
//	Knows(ctx, number, branch)              whether a pull request that AOB opened exists, open or not
//
// Each write is idempotent.
//
// A [Connection] has what only some forges offer: check runs with details, commits that the forge makes and signs,
// deployments, a merge queue, a budget of writes, and addresses that change. [App] authenticates AOB as a GitHub App.
//
// Other users can edit comments. So a comment proves its author only if Commands sets VerifiedBy. Local does: its users
// send commands over the server's socket, and the system identifies them. GitHub and GitLab do for comments that nobody
// has edited. Else the proof is a reaction to a question of AOB's, which Ask reads.
//
// Errors are [delivery.Wait] if the forge is overloaded (429, 5xx), [delivery.Blocked] if a person must act (401, 403,
// 404), and others if the forge cannot be reached. No error contains the token.
//
// A kind of forge is a constructor in [Kinds], which returns a [Connection]: the forge, and a function that
// authenticates its webhooks. A webhook only wakes the loop; its content is not used.
package forge
