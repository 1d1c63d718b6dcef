package container

import "github.com/laminafs/lamina/internal/fault"

// Where a test makes commands and monitors fail or die.
var (
	faultReserved = fault.New("container.reserved") // creating.json is there
	faultSources  = fault.New("container.sources")  // so are the volumes
	faultLayers   = fault.New("container.layers")   // and the layers
	faultCreated  = fault.New("container.created")  // and config.json

	faultMarked  = fault.New("container.marked")  // monitor.lock is held and not empty
	faultSpawned = fault.New("container.spawned") // the monitor runs, and has not been told anything

	faultMounted  = fault.New("container.mounted")  // in the monitor: the layers are mounted
	faultGrouped  = fault.New("container.grouped")  // the cgroup is there
	faultJoined   = fault.New("container.joined")   // the first process is in its cgroup and network
	faultMade     = fault.New("container.made")     // all is done but the execution
	faultRecorded = fault.New("container.recorded") // state.json says running
	faultExecuted = fault.New("container.executed") // the command is executed

	faultPaused = fault.New("container.paused") // state.json says paused

	faultEnded     = fault.New("container.ended")     // it has ended; cgroup and network are gone
	faultUnmounted = fault.New("container.unmounted") // so is the mount
	faultFinal     = fault.New("container.final")     // state.json says exited

	faultRemoving  = fault.New("container.removing")  // removing.json is there, and no config.json
	faultLayerless = fault.New("container.layerless") // the layers are gone
)
