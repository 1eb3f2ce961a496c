// Package terraform applies AOB's Terraform modules, and trains with them.
//
// A [Module] is applied once in its own folder, as a [Stack]: init, plan to a file, a check of the plan against the
// module's [Policy], apply of that file, and destroy at the end. Terraform gets an explicit environment and downloads
// no providers: a module that needs one finds it in a folder on this machine. When a context ends, Terraform is
// interrupted, not killed. A stack belongs to one goroutine.
//
// A [Trainer] trains through a module, on a [Machine]. [Trainer.Train] launches a training, watches it, and leaves no
// process running. Only one process may train in a run's folder; the run's lock ensures it.
//
// # On EC2
//
// [EC2] has the values of the module train-aws-ec2, and the [Policy] for them. The plan must have these values, one by
// one, so a module that loses a property which keeps a GPU from leaking, or the account safe, is not applied. [AWS]
// trains through it. In the bucket of runs, below the prefix of the run:
//
//	input/             what the instance reads; SHA256SUMS lists it, and its digest is a value of the module
//	output/            what the trainer writes, also what earlier attempts have left
//	output/boot/N/     what attempt N tells: status.json, trainer.log, boot.log; exit.json is written last
//
// The bucket of states has RUN/N.tfstate. An attempt goes like this:
//
//  1. What the run still has in the account is ended. The inputs that are not in the bucket yet are uploaded, folders
//     as parts of a tar file. run.json has the paths of the instance.
//  2. The module is planned, checked and applied. Its values are in the attempt's folder before that, so that whoever
//     finds the folder knows the tags. No instance may live longer than the ceiling pays for.
//  3. The files that tell how the training goes are copied from the bucket every 15 seconds. Only names of the run
//     contract are read, in bounded sizes.
//  4. The stack is destroyed, everything with the tags of the run is ended until the account lists nothing three times,
//     and if the training is done, its model and checkpoint are copied.
//
// The limits of an attempt:
//
//	nothing is heard of the instance for 10 minutes     the boot is stuck
//	nothing new is heard for 15 minutes                 the trainer hangs
//	the spot instance is taken away, or AWS ends it     the next attempt goes on from the checkpoint
//	AWS has no instance                                 tried again after a minute, then after twice as long
//	the account runs as many as it may                  tried again every ten minutes, for as long as it takes
//
// After five of these a person must act, and the error says what to do. A spot instance that may be replaced by one on
// demand is, after two interruptions or one lack of capacity. While AWS does not answer, nothing is concluded from it.
// An instance gets no secrets: a training that needs some is refused.
//
// # The trainer's process
//
// Terraform only launches and ends the trainer, so apply takes a second. The module's commands are "aob launch start"
// and "aob launch stop", which call [Launch] in the attempt's folder. The trainer is detached: it has its own session
// and only the environment of launch.json. It holds the lock on trainer.lock from before its first instruction until it
// and all processes that inherited the lock have ended. So the lock shows whether it is alive.
//
// Any process here can be killed at any time. Terraform dies with its runner; the launcher may live a little longer and
// the trainer for hours. Therefore an attempt is ended in this order:
//
//  1. ended.json fences its folder: a late launcher starts nothing in it any more.
//  2. The stack is destroyed.
//  3. Every process with the attempt's mark in its environment is killed, until the lock
//     is free.
//  4. settled.json records the end.
//
// A trainer in a container is launched and ended in the same way. The process is podman's or docker's client then, and
// the container, which may outlive it, is named by the attempt's folder: SIGTERM goes to it, and step 3 removes it.
//
// Before a process is signalled, its start time is compared with the recorded one, so a
// process that reuses the pid is never signalled.
package terraform
