module trainyard.dev/cluster

go 1.26.0
