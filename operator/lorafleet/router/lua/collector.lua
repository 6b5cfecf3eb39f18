-- A cycle of the collector begins when there is as much garbage as was kept of the last. The table counts for nothing there:
-- it is one string, and costs nothing to keep. The less garbage, the more of it is still in the processor's cache.
collectgarbage()
collectgarbage('setpause', math.floor(200 - 100 * #TABLE / 1024 / collectgarbage('count')))
