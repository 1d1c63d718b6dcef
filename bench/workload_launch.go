package bench

import (
	"fmt"
	"os"

	"github.com/laminafs/lamina/bench/report"
)

// Goals of the launcher.
const (
	runcGoal   = 1.5       // of a start, to runc with a union mount
	podmanGoal = 0.25      // of a start, to podman
	tarGoal    = 1.0       // of a load, to tar -x of the same layers
	peakGoal   = 150 << 20 // of a load, bytes
)

// launcherWork is done by who runs us and, in workloads of their own, by the callers: they compare among themselves.
func launcherWork(callers []Caller) (list []Workload) {
	self := Caller{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	for _, c := range append([]Caller{self}, callers...) {
		suffix, as := "", ""
		if c.Name != "" {
			suffix, as = "@"+c.Name, ", called by the ordinary user "+c.Name
		}
		list = append(list,
			onLauncher("container-start"+suffix, "true of busybox in a new container without a network, removed afterwards; runc with a mount of laminafs, bwrap with none"+as,
				Runc, c, runTasks(noNetwork), goal(report.Wall, runcGoal, Runc), goal(report.Wall, podmanGoal, Podman)),
			onLauncher("container-start-net"+suffix, "the same with a network in user space"+as, Podman, c, runTasks(userNetwork)),
		)
		for _, mb := range []int{50, 500} {
			list = append(list, onLauncher(fmt.Sprintf("image-load-%dm%s", mb, suffix),
				fmt.Sprintf("an image of four layers, %d MB, into an empty store; tar -x of each layer%s", mb, as),
				Tar, c, loadTasks(mb), goal(report.Wall, tarGoal, Tar), goal(report.Peak, peakGoal, "")))
		}
	}
	return list
}

func onLauncher(name, about, base string, c Caller, tasks []launchTask, goals ...report.Goal) Workload {
	return Workload{
		Workload: report.Workload{Name: name, Group: containers, About: about, Base: base, Goals: goals},
		launch:   &launchWork{c, tasks},
	}
}

func goal(of report.Of, factor float64, than string) report.Goal {
	return report.Goal{System: Lamina, Of: of, Factor: factor, Than: than}
}
