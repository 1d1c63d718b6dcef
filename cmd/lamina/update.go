package main

import (
	"errors"

	"github.com/docker/cli/opts"
	api "github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/runtime/container"
)

func (a *app) updateCommand() *cobra.Command {
	var (
		u                         api.UpdateConfig
		memory, memoryReservation opts.MemBytes
		memorySwap                opts.MemSwapBytes
		cpus                      opts.NanoCPUs
		pids                      int64
		restart                   string
	)
	cmd := command("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers",
		between(1, -1), "container update, update", func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			policy, err := opts.ParseRestartPolicy(restart)
			if err != nil {
				return err
			}
			u.RestartPolicy = policy
			u.Memory, u.MemoryReservation, u.MemorySwap = memory.Value(), memoryReservation.Value(), memorySwap.Value()
			u.NanoCPUs = cpus.Value()
			if cmd.Flags().Changed("pids-limit") {
				u.PidsLimit = &pids
			}
			return a.each(args, func(name string) error {
				c, err := a.container(name)
				if err != nil {
					return err
				}
				return a.update(cmd, c, u)
			})
		})
	set := cmd.Flags()
	set.Uint16Var(&u.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	set.Int64Var(&u.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	set.Int64Var(&u.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	set.StringVar(&u.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	set.StringVar(&u.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	set.Int64VarP(&u.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	set.Var(&cpus, "cpus", "Number of CPUs")
	set.VarP(&memory, "memory", "m", "Memory limit")
	set.Var(&memoryReservation, "memory-reservation", "Memory soft limit")
	set.Var(&memorySwap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	set.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	set.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	a.completeContainers(cmd, -1, all)
	return cmd
}

func (a *app) update(cmd *cobra.Command, c *container.Container, u api.UpdateConfig) error {
	warnings, err := c.Update(cmd.Context(), u)
	a.warn(warnings)
	return err
}
