require_relative 'wanted'

def get_assert(output, _context)
  output == WANTED
end

class Checks
  def self.long(output, context)
    output.length >= context['config']['least']
  end
end
