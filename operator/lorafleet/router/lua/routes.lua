-- Who answers a request: the table of adapters, and the choice of a version and of engines. Each worker has its own.

local gmatch, random, log, huge = string.gmatch, math.random, math.log, math.huge
local band, bxor, rshift, lshift, tobit = bit.band, bit.bxor, bit.rshift, bit.lshift, bit.tobit

-- Every worker and every new table starts a generator; none may repeat another's.
math.randomseed(os.time() + (tonumber(tostring({}):match('0x(%x+)'), 16) or 0) % 2147483647)

-- Bob Jenkins' one-at-a-time hash: only sums and shifts, which doubles hold exactly.
local function absorb(state, text)
  for at = 1, #text do
    state = tobit(state + byte(text, at))
    state = tobit(state + lshift(state, 10))
    state = bxor(state, rshift(state, 6))
  end
  return state
end

-- A number between 0 and 1, neither of them.
local function fraction(state)
  state = tobit(state + lshift(state, 3))
  state = bxor(state, rshift(state, 11))
  state = tobit(state + lshift(state, 15))
  return (state % 4294967296 + 0.5) / 4294967296
end

-- By name where its line is in the table, as `entry_of` says. Numbers, because the collector follows every object that is
-- kept in each of its cycles: what names had been asked cost each request more than to read its line.
local entries, base = {}, {}
-- By what engines call a version: its adapter; the name by which clients ask for just it, once one did; the numbers of the
-- engines that lack it, if any do; those it is asked on, or false.
local owner, pin_of, lacking, hosts = {}, {}, {}, {}
local base_list, engines, adapter_list = {}, {}, nil
for name in gmatch(TABLE:match('^=base([^\n]*)'), '[^\t]+') do
  base[name] = true
  base_list[#base_list + 1] = name
end
for address in gmatch(TABLE:match('\n=engines([^\n]*)') or '', '[^\t]+') do
  engines[#engines + 1] = address
end
local FIRST = #TABLE:match('^=[^\n]*\n') + #(TABLE:match('\n(=[^\n]*\n)') or '') + 1

-- Where the targets of an adapter begin, found by halves: lines are in order.
local function place(name)
  local low, high = FIRST, #TABLE
  while low < high do
    local from = math.floor((low + high) / 2)
    while from > low and byte(TABLE, from - 1) ~= 10 do
      from = from - 1
    end
    local close = find(TABLE, '\t', from, true)
    local text = sub(TABLE, from, close - 1)
    if text == name then
      return close + 1
    elseif text < name then
      low = find(TABLE, '\n', close, true) + 1
    else
      high = from
    end
  end
  return nil
end

-- For each target that begins at or after `at` in a line: how much later, served, weight, version or '', the engines that
-- lack it.
local function versions(at)
  return gmatch(sub(TABLE, at, find(TABLE, '\n', at, true) - 1), '()([^|\t]+)|(%d+)|([^|\t]*)|([^\t]*)\t')
end

-- What the target at `at` is called by engines.
local function served_at(at)
  return sub(TABLE, at, find(TABLE, '|', at, true) - 1)
end

-- The engines that a version is asked on, in order of preference; nil is any that the cluster likes.
local function preferred(served, missing)
  if missing == '' and SETTINGS.affinity == 0 then
    return nil
  end
  local without, found = {}, {}
  for number in gmatch(missing, '%d+') do
    without[tonumber(number)] = true
  end
  local state = absorb(absorb(0, served), ' ')
  for number, address in ipairs(engines) do
    if not without[number] then
      found[#found + 1] = { address = address, score = fraction(absorb(state, address)) }
    end
  end
  if #found == 0 then
    return nil
  end
  if SETTINGS.affinity > 0 and #found > SETTINGS.affinity then
    table.sort(found, function(one, other) return one.score < other.score end)
    for number = #found, SETTINGS.affinity + 1, -1 do
      found[number] = nil
    end
  end
  local addresses = {}
  for number, one in ipairs(found) do
    addresses[number] = one.address
  end
  return addresses
end

-- The same, found out when a version is first asked; false is any. Only with lists are there addresses at all.
local function hosts_of(served)
  if #engines == 0 then
    return false
  end
  local found = hosts[served]
  if found == nil then
    found = preferred(served, lacking[served] or '') or false
    hosts[served] = found
  end
  return found
end

-- Where the one target is that takes all requests of an adapter; where its targets begin, negative, if several do; 0 if none
-- does; nil for an unknown name.
local function entry_of(name)
  local entry = entries[name]
  if entry then
    return entry
  end
  local at = place(name)
  if not at then
    return nil
  end
  entry = 0
  for later, served, weight, _, missing in versions(at) do
    if SETTINGS.restore_model then
      owner[served] = name
    end
    if missing ~= '' then
      lacking[served] = missing
    end
    if weight ~= '0' then
      entry = entry == 0 and at + later - 1 or -at
    end
  end
  entries[name] = entry
  return entry
end

local pins = {}

-- What engines call the version that a client named by `asked`; `name` is the part before the @, and known.
local function pinned_at(asked, name)
  local pinned = pins[asked]
  if not pinned then
    for _, served, _, version in versions(place(name)) do
      if version ~= '' and name .. '@' .. version == asked then
        pinned = served
        -- Only of those that exist: clients can ask for anything.
        pins[asked], pin_of[served] = served, asked
      end
    end
  end
  return pinned
end

-- The names by which clients ask for the versions of an adapter, in order.
local function pinned_names(name)
  local names = {}
  for _, _, _, version in versions(place(name)) do
    if version ~= '' then
      names[#names + 1] = name .. '@' .. version
    end
  end
  table.sort(names)
  return names
end

-- Without a key by chance. With one by weighted rendezvous hashing: each target draws from the key a lot of its own and
-- the weight scales it, so a rising weight only wins keys, and no two adapters or rollouts favour the same keys.
local function choose(at, key)
  local state = key and absorb(absorb(0, key), '\n')
  local chosen, least, total = nil, huge, 0
  repeat
    local bar = find(TABLE, '|', at, true)
    local close = find(TABLE, '|', bar + 1, true)
    local weight = tonumber(sub(TABLE, bar + 1, close - 1))
    if weight > 0 then
      if state then
        local lot = -log(fraction(absorb(state, sub(TABLE, at, bar - 1)))) / weight
        if lot < least then
          chosen, least = at, lot
        end
      else
        total = total + weight
        if random() * total < weight then
          chosen = at
        end
      end
    end
    at = find(TABLE, '\t', close, true) + 1
  until byte(TABLE, at) == 10
  return served_at(chosen)
end

-- As many engines of a list as will be tried, by chance. The list is shuffled as a side effect.
local function draw(hosts)
  local count = math.min(#hosts, SETTINGS.retries + 1)
  for at = 1, count do
    local other = random(at, #hosts)
    hosts[at], hosts[other] = hosts[other], hosts[at]
  end
  return concat(hosts, ',', 1, count)
end

-- All adapters that serve, in order.
local function adapters()
  if not adapter_list then
    adapter_list = {}
    local from = FIRST
    while from <= #TABLE do
      local close = find(TABLE, '\t', from, true)
      for _, _, weight in versions(close + 1) do
        if weight ~= '0' then
          adapter_list[#adapter_list + 1] = sub(TABLE, from, close - 1)
          break
        end
      end
      from = find(TABLE, '\n', close, true) + 1
    end
  end
  return adapter_list
end

-- At most how many changes of one letter make `one` from `other`, given up above `most`.
local function distance(one, other, most)
  local row = {}
  for at = 0, #other do
    row[at] = at
  end
  for at = 1, #one do
    local corner, least = row[0], at
    row[0] = at
    local letter = byte(one, at)
    for to = 1, #other do
      local cost = letter == byte(other, to) and corner or 1 + math.min(corner, row[to], row[to - 1])
      corner, row[to] = row[to], cost
      if cost < least then
        least = cost
      end
    end
    if least > most then
      return most + 1
    end
  end
  return row[#other]
end

-- What `near` found. To look at 10,000 names takes 50 ms, and who asks for one that is gone goes on asking.
local nears, kept, KEPT = {}, 0, 1000

-- Up to three names that a client may have meant, the nearest first.
local function near(asked)
  if #asked > 128 or nears[asked] then
    return nears[asked] or {}
  end
  local found, lower = {}, asked:lower()
  local function consider(name)
    local other = name:lower()
    if find(other, lower, 1, true) == 1 or find(lower, other, 1, true) == 1 then
      found[#found + 1] = { name = name, far = 0.5 + math.abs(#name - #asked) / 1000 }
    elseif math.abs(#name - #asked) <= 2 then
      local far = distance(lower, other, 2)
      if far <= 2 then
        found[#found + 1] = { name = name, far = far }
      end
    end
  end
  for _, name in ipairs(base_list) do
    consider(name)
  end
  for _, name in ipairs(adapters()) do
    consider(name)
  end
  table.sort(found, function(one, other)
    return one.far < other.far or one.far == other.far and one.name < other.name
  end)
  local names = {}
  for at = 1, math.min(#found, 3) do
    names[at] = found[at].name
  end
  if kept == KEPT then
    nears, kept = {}, 0
  end
  nears[asked], kept = names, kept + 1
  return names
end
