-- Fades the lamps of the reading room with the daylight, so that a page is always equally bright.
--
-- Each lamp has a sensor above its table. A controller looks at the sensor, asks how far the light is from what is wanted,
-- and changes the lamp a little. Nobody should notice: the lamp moves slowly, and rests where it is nearly right.

local Lamp = {}
Lamp.__index = Lamp

local WANTED_LUX = 500
local REST = 0.05 -- no change while the light is within five per cent
local FASTEST = 0.02 -- of full power, in a second

local function clamp(value, low, high)
  return math.max(low, math.min(high, value))
end

--- Make a lamp that is dark. `set` gets its power, between 0 and 1, whenever that changes.
function Lamp.new(name, set)
  return setmetatable({ name = name, set = set, power = 0, integral = 0, manual_until = 0 }, Lamp)
end

--- Move the lamp by what `seconds` allow; `lux` is what the sensor reads.
function Lamp:step(lux, seconds, now)
  if now < self.manual_until then
    return self.power
  end
  local missing = (WANTED_LUX - lux) / WANTED_LUX
  if math.abs(missing) < REST then
    self.integral = 0
    return self.power
  end
  -- The integral makes up for lamps that are old and weak, and is bounded so that a covered sensor does no harm.
  self.integral = clamp(self.integral + missing * seconds, -20, 20)
  local change = 0.01 * missing * seconds + 0.0005 * self.integral
  self:become(self.power + clamp(change, -FASTEST * seconds, FASTEST * seconds))
  return self.power
end

--- Let a reader choose the light; the controller keeps away for half an hour.
function Lamp:choose(power, now)
  self.manual_until = now + 30 * 60
  self.integral = 0
  self:become(power)
end

function Lamp:become(power)
  power = clamp(power, 0, 1)
  if math.abs(power - self.power) >= 1 / 256 then
    self.power = power
    self.set(power)
  end
end

-- The room: lamps by name, and a sensor that is believed only if its neighbours do not contradict it.
local Room = {}
Room.__index = Room

function Room.new()
  return setmetatable({ lamps = {}, neighbours = {}, readings = {} }, Room)
end

function Room:add(lamp, neighbours)
  self.lamps[lamp.name] = lamp
  self.neighbours[lamp.name] = neighbours or {}
end

--- The median of a sensor and its neighbours: one hand or one ray of sun on a sensor changes nothing.
function Room:believed(name)
  local values = { self.readings[name] }
  for _, other in ipairs(self.neighbours[name]) do
    values[#values + 1] = self.readings[other]
  end
  if #values == 0 then
    return nil
  end
  table.sort(values)
  local middle = math.floor((#values + 1) / 2)
  if #values % 2 == 1 then
    return values[middle]
  end
  return (values[middle] + values[middle + 1]) / 2
end

function Room:step(readings, seconds, now)
  self.readings = readings
  for name, lamp in pairs(self.lamps) do
    local lux = self:believed(name)
    if lux then
      lamp:step(lux, seconds, now)
    end
  end
end

return { Lamp = Lamp, Room = Room }
