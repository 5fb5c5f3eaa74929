# frozen_string_literal: true

# Lays out spine labels on sheets and writes them as PostScript.
#
#   ruby labels.rb --skip 7 marks.txt > labels.ps
#
# Each line of the input is a shelf mark; its words become the lines of a label. Sheets that were begun are used up: with
# --skip the first places stay empty.

require "optparse"

# A sheet of labels from the stationer, in millimetres.
Sheet = Struct.new(:columns, :rows, :width, :height, :left, :top, :gap, keyword_init: true) do
  def places
    columns * rows
  end

  # The lower left corner of a place, counted along the rows from the top, in PostScript's points.
  def corner(place)
    row, column = place.divmod(columns)
    x = left + column * (width + gap)
    y = 297 - top - (row + 1) * height
    [x, y].map { |millimetres| millimetres * 72 / 25.4 }
  end
end

SHEETS = {
  "spine" => Sheet.new(columns: 7, rows: 10, width: 25.4, height: 27.0, left: 8.0, top: 13.5, gap: 2.5),
  "box" => Sheet.new(columns: 3, rows: 8, width: 63.5, height: 33.9, left: 7.2, top: 12.9, gap: 2.5)
}.freeze

# The text of a label, broken so that it fits.
class Label
  attr_reader :lines

  def initialize(mark, most: 6)
    words = mark.split
    raise ArgumentError, "an empty shelf mark" if words.empty?

    words = words.each_cons(2).with_object([words.first]) do |(before, word), out|
      short = before.length + word.length < 7 && out.last == before
      short ? out[-1] = "#{before} #{word}" : out << word
    end
    raise ArgumentError, "#{mark}: #{words.length} lines, and a label has #{most}" if words.length > most

    @lines = words
  end

  def size(sheet)
    widest = lines.map(&:length).max
    by_width = sheet.width * 72 / 25.4 / (widest * 0.62)
    by_height = sheet.height * 72 / 25.4 / (lines.length * 1.2)
    [by_width, by_height, 18].min.floor(1)
  end
end

# Writes labels page by page.
class Printer
  def initialize(sheet, out, skip: 0)
    raise ArgumentError, "a sheet has #{sheet.places} places" if skip >= sheet.places

    @sheet = sheet
    @out = out
    @place = skip
    @page = 0
  end

  def print(labels)
    @out.puts "%!PS-Adobe-3.0\n%%Pages: (atend)"
    labels.each { |label| draw(label) }
    @out.puts "showpage" if @page.positive?
    @out.puts "%%Trailer\n%%Pages: #{@page}\n%%EOF"
  end

  private

  def draw(label)
    turn_page if @page.zero? || @place == @sheet.places
    x, y = @sheet.corner(@place)
    size = label.size(@sheet)
    @out.puts "/Courier-Bold findfont #{size} scalefont setfont"
    label.lines.each_with_index do |line, number|
      height = y + @sheet.height * 72 / 25.4 - (number + 1) * size * 1.2
      @out.puts format("%<x>.1f %<y>.1f moveto (%<text>s) show", x: x, y: height, text: escaped(line))
    end
    @place += 1
  end

  def turn_page
    unless @page.zero?
      @out.puts "showpage"
      @place = 0
    end
    @page += 1
    @out.puts "%%Page: #{@page} #{@page}"
  end

  def escaped(text)
    text.gsub(/[()\\]/) { |character| "\\#{character}" }
  end
end

if $PROGRAM_NAME == __FILE__
  options = { sheet: "spine", skip: 0 }
  OptionParser.new do |parser|
    parser.on("--sheet NAME", SHEETS.keys) { |name| options[:sheet] = name }
    parser.on("--skip N", Integer) { |number| options[:skip] = number }
  end.parse!
  begin
    labels = ARGF.each_line.map(&:strip).reject(&:empty?).map { |line| Label.new(line) }
    Printer.new(SHEETS.fetch(options[:sheet]), $stdout, skip: options[:skip]).print(labels)
  rescue ArgumentError => e
    abort "labels: #{e.message}"
  end
end
