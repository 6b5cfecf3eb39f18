module lorafleet/bench/backend

go 1.24
