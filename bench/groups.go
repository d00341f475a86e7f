package main

// groups are all the rows, in the order in which they are printed. Their targets are those of the design.
func (b *bench) groups() []group {
	counts := []group{countGroup("zk", true), countGroup("etcd", false)}
	if b.counts {
		return counts
	}
	return append(counts,
		kazooGroup(),
		recipeGroup(),
		b.backlogGroup("zk"),
		b.backlogGroup("etcd"),
		flowGroup(false),
		flowGroup(true),
		b.fleetGroup("zk"),
		b.fleetGroup("etcd"),
		slowGroup(),
	)
}

// starter is what starts the service of a prefix of rows' names.
func (b *bench) starter(prefix string) starter {
	if prefix == "zk" {
		return b.zookeeper
	}
	return b.etcd
}
