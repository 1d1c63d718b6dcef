// Package createopts turns the flags of run and create into the configuration of a container, as Docker's command line
// does. Nothing here touches a store or a kernel, but for the files that flags name: --env-file, --label-file and a
// seccomp profile.
//
// Flags that mean nothing without a daemon, on this system, or to this launcher (--gpus, --isolation, --health-cmd, ...)
// are not there: an unknown flag is an error, a flag that does nothing is a trap.
package createopts
