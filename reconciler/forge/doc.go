// Package forge speaks to where pull requests live.
//
// [Gitea] speaks to a Gitea or Forgejo server, [Local] to a bare git folder of
// this machine, where every branch but main is a proposal. Both have the same
// methods:
//
//	Address()                               names the forge and the repository
//	PullRequests(ctx)                       the open ones, sorted by number
//	SetStatus(ctx, commit, check)           one status check on a commit
//	Statuses(ctx, commit)                   the newest of each context under aob/, and who set it
//	Comment(ctx, pr, marker, body)          one comment of AOB's own, edited in place
//	CommentBody(ctx, pr, marker)            that comment as it is now
//	Commands(ctx, pr)                       what people asked of AOB in comments
//	Ask(ctx, pr, question)                  asks back in a comment, and who has agreed to it
//	Check(ctx)                              what is wrong with how the forge is set up
//	Permission(ctx, user)                   what a user may do, by the forge's own word
//	Teams(ctx, user)                        the teams of the repository, and whether a user is in each
//	OpenPR(ctx, head, base, title, body)    a pull request for a branch, made once
//	Knows(ctx, number, branch)              whether a pull request that AOB opened is there, open or not
//
// Each write may be repeated: the same call leaves the forge as it is.
//
// Comments are edited by others. So what a person writes is that person's word only
// where Commands vouches for it, as a local folder can: its users come over the
// server's socket, and the system says who they are. On Gitea a person's word is a
// reaction to a question of AOB's, which Ask reads.
//
// Errors are [delivery.Wait] where the forge asks for time (429, 5xx),
// [delivery.Blocked] where a person must act (401, 403, 404), and plain where
// it cannot be reached. No error holds the token.
//
// A kind of forge is a constructor in [Kinds], which returns a [Connection]: the forge,
// and how it proves that a webhook is its own. A webhook only wakes the loop:
// nothing that it says is believed.
package forge
