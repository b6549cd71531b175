import words from './wanted.cjs';

export default function (output: string, context: {vars: Record<string, unknown>}): boolean {
  return output === words.wanted && 'id' in context.vars;
}
